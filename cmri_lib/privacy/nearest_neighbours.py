"""Nearest neighbours: are samples closer to the patients a generator learnt from than to patients it never saw?

The training and the hold-out patients come from one random split, so to a generator without memory they are alike:
whose slice lies nearest to a sample is a matter of numbers only. The audit counts, for every patient of both sides,
the samples that lie nearest to him or her, and compares the mean counts per patient:

    share = m_train / (m_train + m_holdout),   m = samples nearest to that side / patients of that side.

The share is 0.5 without memory and 1 for copies, at any sizes of the two sides. Training is not cut down to the size
of the hold-out instead, because a cut would discard the copies of the patients left out, and the share of a pure
copying machine would fall towards 0.5.

A sample that follows the mask of a *training* patient resembles that patient for a reason other than memory. Audit
samples that follow masks of test patients, or of none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cmri_lib.cohort.slices import Slices, refuse_overlap
from cmri_lib.errors import DataError
from cmri_lib.measures.instruments.learned_features import Features
from cmri_lib.measures.statistics.bootstrap import Score, bootstrap
from cmri_lib.measures.statistics.comparison import refuse_unlike

#: A sample is a suspected copy if it lies nearer to training than this share of real test slices do.
SUSPECT = 0.05
#: Samples compared at once with all slices of a side.
CHUNK = 256


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


def nearest(samples: np.ndarray, side: np.ndarray, patients: np.ndarray) -> Neighbours:
    """Nearest rows of `side` (M, D), whose patients are (M,), to `samples` (N, D), by Euclidean distance."""
    index, distance = np.empty(len(samples), int), np.empty(len(samples))
    squares = (side**2).sum(1)
    for start in range(0, len(samples), CHUNK):
        part = samples[start:start + CHUNK]
        index[start:start + CHUNK] = (squares - 2 * part @ side.T).argmin(1)
        # Taken anew from the difference: the expanded square loses the digits that tell a copy from a near copy.
        distance[start:start + CHUNK] = np.linalg.norm(part - side[index[start:start + CHUNK]], axis=1)
    return Neighbours(index, patients[index], distance)


@dataclass(frozen=True)
class Audit:
    """Result of `audit_neighbours`: tidy `rows`, and `suspects`, the suspected copies, nearest first.

    Suspects have columns: sample (index), train_index, train_patient, distance, percentile (share of real test slices
    that lie as near to training), holdout_distance.
    """

    rows: list[dict[str, object]]
    suspects: pd.DataFrame


def audit_neighbours(test: Slices, synthetic: Slices, training: Slices, holdout: Slices, features: Features, *,
                     resamples: int = 1000, seed: int = 0) -> Audit:
    """Distances of samples to their nearest training and hold-out slices, in one feature space.

    Args:
        test: real patients that are neither in training nor in hold-out: what honest samples would look like.
        synthetic: samples.
        training: exactly the slices the generator learnt from.
        holdout: real patients that the generator never saw.
        features: feature space, or `Pixels()`.

    Returns:
        Three rows, n is the number of samples:

        ``nearest_share_<space>``: the share above. Floor: the share of the test slices; ceiling: 1, copies. The
        interval is over the patients of all three sets.

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
    sides = [(features(s.images), s.patients) for s in (training, holdout)]
    near, far = (nearest(features(synthetic.images), *side) for side in sides)
    test_near, test_far = (nearest(features(test.images), *side) for side in sides)
    limit = np.quantile(test_near.distance, SUSPECT)
    options = {"n": len(synthetic), "resamples": resamples, "seed": seed}

    share = nearest_share(near, far, synthetic.patients, training.patients, holdout.patients, **options)
    test_share = nearest_share(test_near, test_far, test.patients, training.patients, holdout.patients, resamples=1)
    ratio = bootstrap(lambda counts: _median_ratio(near, far, counts), synthetic.patients, **options)
    copies = bootstrap(lambda counts: float(np.average(near.distance < limit, weights=counts)), synthetic.patients,
                       **options)
    every = np.ones(len(test), int)
    rows = [share.against(test_share.value, 1.0).row(f"nearest_share_{features.name}", "privacy", "lower"),
            ratio.against(_median_ratio(test_near, test_far, every), 0.0)
            .row(f"nearest_ratio_{features.name}", "privacy", "higher"),
            copies.against(SUSPECT, 1.0).row(f"near_copies_{features.name}", "privacy", "lower")]
    return Audit(rows, _suspects(near, far, test_near.distance, limit))


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
    win = np.where(near.distance < far.distance, 1.0, np.where(near.distance > far.distance, 0.0, 0.5))
    sides = [np.unique(training), np.unique(holdout)]
    places = [np.searchsorted(side, who.patient) for side, who in zip(sides, (near, far))]

    def statistic(sample_counts: np.ndarray, train_counts: np.ndarray, holdout_counts: np.ndarray) -> float:
        to_train = (sample_counts * train_counts[places[0]] * win).sum() / train_counts.sum()
        to_holdout = (sample_counts * holdout_counts[places[1]] * (1 - win)).sum() / holdout_counts.sum()
        total = to_train + to_holdout
        return float(to_train / total) if total else float("nan")

    return bootstrap(statistic, samples, *sides, **options)


def _median_ratio(near: Neighbours, far: Neighbours, counts: np.ndarray) -> float:
    index = np.repeat(np.arange(len(counts)), counts)
    return float(np.median(near.distance[index]) / np.median(far.distance[index]))


def _suspects(near: Neighbours, far: Neighbours, reference: np.ndarray, limit: float) -> pd.DataFrame:
    chosen = np.flatnonzero(near.distance < limit)
    chosen = chosen[np.argsort(near.distance[chosen], kind="stable")]
    percentile = np.searchsorted(np.sort(reference), near.distance[chosen], side="right") / len(reference)
    return pd.DataFrame({"sample": chosen, "train_index": near.index[chosen], "train_patient": near.patient[chosen],
                         "distance": near.distance[chosen], "percentile": percentile,
                         "holdout_distance": far.distance[chosen]})
