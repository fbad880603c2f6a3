"""Nearest neighbours: are samples closer to the patients a generator learnt from than to patients it never saw?

The training and the hold-out patients come from one random split, so to a generator without memory they are alike:
whose slice lies nearest to a sample is a matter of numbers only. The audit counts, for every patient of both sides,
the samples that lie nearest to him or her, and compares the mean counts per patient:

    share = m_train / (m_train + m_holdout),   m = samples nearest to that side / patients of that side.

The share is 0.5 without memory and 1 for copies, at any sizes of the two sides. Training is not cut down to the size
of the hold-out instead, because a cut would discard the copies of the patients left out, and the share of a pure
copying machine would fall towards 0.5.

With few patients one half is not what chance gives: some patients lie in the middle of everything. The share is therefore
read against that of real test slices, which no generator has made: their **excess** over it, with training and hold-out
patients drawn alike for both, is 0 without memory. Samples that lie beside the data are nearest to whoever stands at
its edge; that says nothing, and the share is left blank.

A sample that follows the mask of a *training* patient resembles that patient for a reason other than memory. Audit
samples that follow masks of test patients, or of none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from joblib import delayed

from cmri_lib.cohort.jobs import results
from cmri_lib.cohort.slices import Slices, refuse_overlap
from cmri_lib.errors import DataError
from cmri_lib.measures.fidelity import support
from cmri_lib.measures.instruments.learned_features import Features
from cmri_lib.measures.statistics.bootstrap import Score, bootstrap
from cmri_lib.measures.statistics.comparison import refuse_unlike

#: A sample is a suspected copy if it lies nearer to training than this share of real test slices do.
SUSPECT = 0.05
#: Samples in whose neighbourhood no more than this share of the real test slices lies are beside the data, unless there are
#: near copies among them.
REACHED = 0.02
#: Samples compared at once with a block of a side, and slices of a side whose rows are in memory at once.
CHUNK, BLOCK = 256, 4096


class Pixels:
    """The images themselves as a feature space: root mean square differences of intensity, range 2."""

    name = "pixel"
    dimension = 0  # that of the images

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, 1, H, W) → (N, H · W) float64, scaled so that a Euclidean distance is a root mean square."""
        flat = images.reshape(len(images), -1).astype(float)
        return flat / np.sqrt(flat.shape[1])


@dataclass(frozen=True)
class Neighbours:
    """The nearest slice of one side for each of N samples: its index (N,), patient (N,) and distance (N,)."""

    index: np.ndarray
    patient: np.ndarray
    distance: np.ndarray


def nearest(samples: np.ndarray, side: np.ndarray, patients: np.ndarray, own: np.ndarray | None = None) -> Neighbours:
    """Nearest rows of `side` (M, D), whose patients are (M,), to `samples` (N, D), by Euclidean distance; rows of a sample's
    `own` (N,) patient do not count."""
    index, distance = np.empty(len(samples), int), np.empty(len(samples))
    squares = (side**2).sum(1)
    for start in range(0, len(samples), CHUNK):
        part = samples[start:start + CHUNK]
        apart = squares - 2 * part @ side.T
        if own is not None:
            apart[own[start:start + CHUNK, None] == patients[None]] = np.inf
        index[start:start + CHUNK] = apart.argmin(1)
        # Taken anew from the difference: the expanded square loses the digits that tell a copy from a near copy.
        distance[start:start + CHUNK] = np.linalg.norm(part - side[index[start:start + CHUNK]], axis=1)
    return Neighbours(index, patients[index], distance)


def nearest_slices(sets: Sequence[np.ndarray], side: Slices, features: Features, block: int = BLOCK) -> list[Neighbours]:
    """Of each set of rows (N, D) the nearest slices of `side`. Its rows are computed, and forgotten, `block` slices at a time:
    a side may have more of them than fit into memory. The blocks go through joblib."""
    starts = range(0, len(side), block)
    jobs = (delayed(_nearest_of_block)(features, side.images[i:i + block], side.patients[i:i + block], *sets) for i in starts)
    best: list[Neighbours] = []
    for start, found in zip(starts, results(jobs, threads=True)):
        found = [replace(one, index=one.index + start) for one in found]
        best = [_nearer(*pair) for pair in zip(best, found)] if best else found
    return best


def _nearest_of_block(features: Features, images: np.ndarray, patients: np.ndarray, *sets: np.ndarray) -> list[Neighbours]:
    side = features(images)
    return [nearest(rows, side, patients) for rows in sets]


def _nearer(first: Neighbours, second: Neighbours) -> Neighbours:
    """Of each sample the nearer neighbour, of equals the first."""
    later = second.distance < first.distance
    return Neighbours(*(np.where(later, b, a) for a, b in zip(vars(first).values(), vars(second).values())))


@dataclass(frozen=True)
class Audit:
    """Result of `audit_neighbours`: tidy `rows`, and `suspects`, the suspected copies, nearest first. `blank` says why the
    share has no value, "" if it has one.

    Suspects have columns: sample (index), train_index, train_patient, distance, percentile (share of real test slices
    that lie as near to training), holdout_distance.
    """

    rows: list[dict[str, object]]
    suspects: pd.DataFrame
    blank: str = ""


def audit_neighbours(test: Slices, synthetic: Slices, training: Slices, holdout: Slices, features: Features, *,
                     resamples: int = 1000, seed: int = 0, block: int = BLOCK) -> Audit:
    """Distances of samples to their nearest training and hold-out slices, in one feature space.

    Args:
        test: real patients that are neither in training nor in hold-out: what honest samples would look like.
        synthetic: samples.
        training: exactly the slices the generator learnt from.
        holdout: real patients that the generator never saw.
        features: feature space, or `Pixels()`.
        block: slices of training and hold-out that are looked at at once, see `nearest_slices`.

    Returns:
        Four rows, n is the number of samples:

        ``nearest_share_<space>``: the share above. Floor: the share of the test slices; ceiling: 1, copies. The
        interval is over the patients of all three sets. NaN for samples beside the data (`REACHED`).

        ``nearest_excess_<space>``: that share minus that of the test slices, training and hold-out patients drawn alike
        for both. Floor: 0. Blank with the share.

        ``nearest_ratio_<space>``: median distance to training over median distance to hold-out, all slices of both.
        A larger side is nearer by its size alone, so it is read against the floor, the ratio of the test slices.
        Ceiling: 0, copies.

        ``near_copies_<space>``: share of samples nearer to training than 5 % of the test slices are (`SUSPECT`).
        Floor: 5 %, by definition; ceiling: 1.

    Raises:
        SplitError: if two of the real sets share a patient.
        DataError: if a set is empty or of other size or intensities, or real images are all of one value.
    """
    refuse_unlike(training=training, holdout=holdout, test=test, synthetic=synthetic)
    for name, slices in (("training", training), ("holdout", holdout), ("test", test)):
        if slices.images.min() == slices.images.max():
            raise DataError("real images that show nothing", field=name, remedy="give slices with images")
    for first, second, names in ((training, holdout, ("training", "holdout")), (training, test, ("training", "test")),
                                 (holdout, test, ("holdout", "test"))):
        refuse_overlap(first, second, names)
    made, real = (features(slices.images) for slices in (synthetic, test))
    (near, test_near), (far, test_far) = (nearest_slices([made, real], side, features, block) for side in (training, holdout))
    limit = np.quantile(test_near.distance, SUSPECT)
    options = {"n": len(synthetic), "resamples": resamples, "seed": seed}

    sides_of = {"training": training.patients, "holdout": holdout.patients}
    share = nearest_share(near, far, synthetic.patients, **sides_of, **options)
    test_share = nearest_share(test_near, test_far, test.patients, **sides_of, resamples=1)
    excess = share_excess((near, far, synthetic.patients), (test_near, test_far, test.patients), **sides_of, **options)
    ratio = bootstrap(lambda counts: _median_ratio(near, far, counts), synthetic.patients, **options)
    copies = bootstrap(lambda counts: float(np.average(near.distance < limit, weights=counts)), synthetic.patients,
                       **options)
    reached = _reached(real, made, synthetic.patients)
    blank = "" if reached > REACHED or copies.value > SUSPECT else (
        f"the samples lie beside the data: {reached:.0%} of the real test slices are in their neighbourhood, and "
        f"{copies.value:.0%} of them are near copies")
    if blank:
        share, excess = (replace(s, value=np.nan, low=np.nan, high=np.nan) for s in (share, excess))
    every = np.ones(len(test), int)
    rows = [share.against(test_share.value, 1.0).row(f"nearest_share_{features.name}", "privacy", "lower"),
            excess.against(0.0, 1.0 - test_share.value).row(f"nearest_excess_{features.name}", "privacy", "lower"),
            ratio.against(_median_ratio(test_near, test_far, every), 0.0)
            .row(f"nearest_ratio_{features.name}", "privacy", "higher"),
            copies.against(SUSPECT, 1.0).row(f"near_copies_{features.name}", "privacy", "lower")]
    return Audit(rows, _suspects(near, far, test_near.distance, limit), blank)


def nearest_share(near: Neighbours, far: Neighbours, samples: np.ndarray, training: np.ndarray, holdout: np.ndarray,
                  **options: object) -> Score:
    """Share of samples nearer to training than to hold-out, at equal numbers of patients (see the module).

    Args:
        near, far: neighbours of the samples in training and in hold-out; equal distances count half to each side.
        samples, training, holdout: the patient of every slice of the three sets.
        options: of `bootstrap`.

    A draw of the bootstrap draws sample patients, and training and hold-out patients **with the samples nearest to
    them**: neighbours are not sought anew, which would turn the copies of an absent patient into none.
    """
    sides = [np.unique(training), np.unique(holdout)]
    return bootstrap(_share(near, far, sides), samples, *sides, **options)


#: Neighbours in training and in hold-out of some slices, and the patient of every slice.
Placed = tuple[Neighbours, Neighbours, np.ndarray]


def share_excess(samples: Placed, test: Placed, *, training: np.ndarray, holdout: np.ndarray, **options: object) -> Score:
    """`nearest_share` of samples minus that of real test slices; a draw has the same training and hold-out patients for
    both. The arguments are those of `nearest_share`."""
    sides = [np.unique(training), np.unique(holdout)]
    ours, theirs = (_share(near, far, sides) for near, far, _ in (samples, test))
    return bootstrap(lambda u, v, *drawn: ours(u, *drawn) - theirs(v, *drawn), samples[2], test[2], *sides, **options)


def _share(near: Neighbours, far: Neighbours, sides: list[np.ndarray]) -> Callable[..., float]:
    """The share as a function of counts of samples, training patients and hold-out patients; `sides` are their names."""
    win = np.where(near.distance < far.distance, 1.0, np.where(near.distance > far.distance, 0.0, 0.5))
    places = [np.searchsorted(side, who.patient) for side, who in zip(sides, (near, far))]

    def statistic(sample_counts: np.ndarray, train_counts: np.ndarray, holdout_counts: np.ndarray) -> float:
        to_train = (sample_counts * train_counts[places[0]] * win).sum() / train_counts.sum()
        to_holdout = (sample_counts * holdout_counts[places[1]] * (1 - win)).sum() / holdout_counts.sum()
        total = to_train + to_holdout
        return float(to_train / total) if total else float("nan")

    return statistic


def _reached(real: np.ndarray, samples: np.ndarray, patients: np.ndarray) -> float:
    """Recall: the share of real rows within the neighbourhood of a sample, see `measures.fidelity.support`."""
    limits, within = support.radii(samples, patients), np.zeros(len(real), bool)
    for part in support.row_blocks(len(samples), len(real)):
        within |= (support.pairwise_distances(real, samples[part]) <= limits[part]).any(1)
    return float(within.mean())


def _median_ratio(near: Neighbours, far: Neighbours, counts: np.ndarray) -> float:
    """NaN where the samples are copies of hold-out slices, beside which nothing has a ratio."""
    index = np.repeat(np.arange(len(counts)), counts)
    training, holdout = np.median(near.distance[index]), np.median(far.distance[index])
    return float(training / holdout) if holdout else math.nan


def _suspects(near: Neighbours, far: Neighbours, reference: np.ndarray, limit: float) -> pd.DataFrame:
    chosen = np.flatnonzero(near.distance < limit)
    chosen = chosen[np.argsort(near.distance[chosen], kind="stable")]
    percentile = np.searchsorted(np.sort(reference), near.distance[chosen], side="right") / len(reference)
    return pd.DataFrame({"sample": chosen, "train_index": near.index[chosen], "train_patient": near.patient[chosen],
                         "distance": near.distance[chosen], "percentile": percentile,
                         "holdout_distance": far.distance[chosen]})
