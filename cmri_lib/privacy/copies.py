"""Are there copies among the samples? Distances to training slices, each read against what strangers' slices
show.

All is told in one feature space: pixels, features, or the copy detector's (`copy_detector`), in which a
mirrored or shifted copy still lies beside its original. The real slices that set thresholds are of hold-out
patients, whom the generator has not seen.

A space that has learnt from the training slices, as the copy detector has, places them apart from all others. So
they are what samples and strangers are compared *with*, and samples are only ever ranked among strangers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans

from cmri_lib.cohort.slices import Slices, refuse_overlap
from cmri_lib.errors import DataError
from cmri_lib.measures.instruments.learned_features import Features
from cmri_lib.measures.statistics.bootstrap import Score, bootstrap
from cmri_lib.measures.statistics.comparison import refuse_unlike
from cmri_lib.privacy.attack import PatientScores, Sides, auc
from cmri_lib.privacy.nearest_neighbours import nearest

#: Share of hold-out slices that may count as copies: what sets the threshold.
RATE = 0.01
#: Cells of C_T, and slices of each kind below which a cell is left out.
CELLS, FEWEST = 4, 10


@dataclass(frozen=True)
class Described:
    """Rows (N, D) of slices in a space, and their patients (N,)."""

    rows: np.ndarray
    patients: np.ndarray

    def nearest(self, other: Described, *, strangers: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Distance to, and index of, the nearest row of `other`; with `strangers` of another patient. (N,) each."""
        found = nearest(self.rows, other.rows, other.patients, self.patients if strangers else None)
        return found.distance, found.index


class CopyAudit:
    """``CopyAudit(samples, training, holdout, others, space).rows()``.

    Args:
        samples: synthetic slices.
        training: exactly the slices that the generator learnt from.
        holdout: real slices of patients it has not seen; their patients set the threshold.
        others: further patients it has not seen, for the same audit with the hold-out in the place of training.
        space: a feature space, or `Pixels()`.
        rate: share of hold-out slices that lie below the threshold.

    Raises:
        SplitError: if training and hold-out share a patient.
        DataError: if a set is empty or unlike the others in size or intensities, or has fewer than two
            patients.
    """

    def __init__(self, samples: Slices, training: Slices, holdout: Slices, others: Slices, space: Features, *,
                 rate: float = RATE,
                 resamples: int = 500, seed: int = 0):
        refuse_unlike(training=training, holdout=holdout, others=others, samples=samples)
        refuse_overlap(training, holdout, ("training", "holdout"))
        for name, side in (("training", training), ("holdout", holdout)):
            refuse_overlap(side, others, (name, "others"))
        for name, side in (("training", training), ("holdout", holdout)):
            if len(np.unique(side.patients)) < 2:
                raise DataError("one patient", field=name, remedy="give at least two")
        self.space, self.rate, self.options = space.name, rate, {"resamples": resamples, "seed": seed}
        self.samples, self.training, self.holdout, self.others = (
            Described(space(s.images), s.patients) for s in (samples, training, holdout, others))
        self.learnt = getattr(getattr(space, "function", space), "learnt", False)
        self.distance, self.index = self.samples.nearest(self.training)
        self.null, _ = self.holdout.nearest(self.training)
        # The same with the hold-out in the place of training, whom nobody has learnt from.
        self.swapped_distance, _ = self.samples.nearest(self.holdout)
        self.swapped_null, _ = self.others.nearest(self.holdout)
        self.threshold = self._threshold(self.null)

    def _threshold(self, null: np.ndarray, counts: np.ndarray | None = None) -> float:
        """The distance below which at most the share `rate` of strangers' slices lies."""
        ordered = np.sort(null if counts is None else np.repeat(null, counts))
        return float(ordered[int(self.rate * len(ordered))])

    @property
    def suspects(self) -> np.ndarray:
        """(N,) bool: samples below the threshold."""
        return self.distance < self.threshold

    def closest(self, count: int) -> pd.DataFrame:
        """The closest pairs: sample, training (indices), distance, p (share of hold-out slices at least as
        near)."""
        order = np.argsort(self.distance, kind="stable")[:count]
        p = (1 + np.searchsorted(np.sort(self.null), self.distance[order], "right")) / (len(self.null) + 1)
        return pd.DataFrame({"sample": order, "training": self.index[order],
                             "distance": self.distance[order], "p": p})

    def near_copies(self) -> Score:
        """Share of samples below the threshold, whose own uncertainty the interval holds: hold-out patients
        are drawn too.
        Floor: the rate; ceiling: 1."""
        def share(mine: np.ndarray, theirs: np.ndarray) -> float:
            return float(np.average(self.distance < self._threshold(self.null, theirs), weights=mine))

        return self._score(share, self.samples.patients, self.holdout.patients).against(self.rate, 1.0)

    def near_copy_excess(self) -> Score:
        """`near_copies` minus the same with the hold-out in the place of training. Samples that lie near
        everything, such as blurred ones, are near copies of strangers as well; copies are of training alone.
        Floor: 0; ceiling: 1."""
        def excess(mine: np.ndarray, theirs: np.ndarray, seen: np.ndarray) -> float:
            near = self.distance < self._threshold(self.null, theirs)
            swapped = self.swapped_distance < self._threshold(self.swapped_null, seen)
            return float(np.average(near.astype(float) - swapped, weights=mine))

        patients = self.samples.patients, self.holdout.patients, self.others.patients
        return self._score(excess, *patients).against(0.0, 1.0)

    def swapped_share(self) -> Score:
        """Nearest-training share, **calibrated by swapping**: the distance of a sample to training, as a rank
        among those of hold-out slices to training, against its distance to the hold-out, as a rank among those
        of others to the hold-out. The chance that the first rank is lower, ties half: 0.5 for a generator that
        favours neither side, at any sizes of the two; 1 for copies. Floor: 0.5."""
        def share(mine: np.ndarray, theirs: np.ndarray, seen: np.ndarray) -> float:
            first, second = (
                _ranks(*sides) for sides in ((self.distance, self.null, theirs),
                                             (self.swapped_distance, self.swapped_null, seen)))
            return float(np.average(0.5 + 0.5 * np.sign(second - first), weights=mine))

        patients = self.samples.patients, self.holdout.patients, self.others.patients
        return self._score(share, *patients).against(0.5, 1.0)

    def authenticity(self) -> Score:
        """Share of samples that lie further from their nearest training slice than this lies from the next
        patient's (Alaa, van Breugel, Saveliev & van der Schaar, ICML 2022, arXiv 2102.08921, section 3).
        Floor: that of hold-out slices; ceiling: 0, copies."""
        reach, _ = self.training.nearest(self.training, strangers=True)
        distance, index = self.holdout.nearest(self.training)
        floor = float((distance > reach[index]).mean())
        return self._mean(self.distance > reach[self.index]).against(floor, 0.0)

    def neighbour_ratio(self) -> Score:
        """Nearest-neighbour distance ratio by patient: the distance to the nearest training slice over that
        to the nearest of any other patient, mean over samples. Floor: that of hold-out slices; ceiling: 0,
        copies."""
        own, null = (self._ratios(side) for side in (self.samples, self.holdout))
        return self._mean(own).against(float(null.mean()), 0.0)

    def _ratios(self, side: Described) -> np.ndarray:
        first, index = side.nearest(self.training)
        own = Described(side.rows, self.training.patients[index])  # so that this very patient is left out
        second, _ = own.nearest(self.training, strangers=True)
        return first / np.maximum(second, 1e-12)

    def privacy_loss(self) -> Score:
        """Adversarial accuracy with hold-out minus that with training (Yale, Dash, Dutta, Guyon, Pavao &
        Bennett, Neurocomputing 2020, section 3): 0 without memory, up to 0.5 for copies. Slices of one
        patient do not count as neighbours; of training, as many patients as there are of hold-out take part.
        Floor: 0; ceiling: 0.5."""
        generator = np.random.default_rng(self.options["seed"])
        names = np.unique(self.training.patients)
        fewer = generator.permutation(names)[:len(np.unique(self.holdout.patients))]
        kept = np.isin(self.training.patients, fewer)
        part = Described(self.training.rows[kept], self.training.patients[kept])
        accuracies = [self._accuracy(real) for real in (self.holdout, part)]

        def loss(mine: np.ndarray, theirs: np.ndarray, seen: np.ndarray) -> float:
            (far_h, far_s), (far_t, far_u) = accuracies
            held = np.average(far_h, weights=theirs) + np.average(far_s, weights=mine)
            return float(held - np.average(far_t, weights=seen) - np.average(far_u, weights=mine)) / 2

        return self._score(loss, self.samples.patients, self.holdout.patients,
                           part.patients).against(0.0, 0.5)

    def _accuracy(self, real: Described) -> tuple[np.ndarray, np.ndarray]:
        """Of real slices, and of samples: is the nearest of the other kind further than the nearest of the
        own?"""
        own, across = real.nearest(real, strangers=True)[0], real.nearest(self.samples)[0]
        each = Described(self.samples.rows, np.arange(len(self.samples.rows)))
        return across > own, each.nearest(real)[0] > each.nearest(each, strangers=True)[0]

    def data_copying(self) -> Score:
        """C_T: are samples nearer to training than hold-out slices are, cell by cell of the space? A mean of
        Mann–Whitney z-scores, weighed by the hold-out slices of each cell (Meehan, Chaudhuri & Dasgupta,
        AISTATS 2020, arXiv 2004.05675, eq. 4); below 0: copying, above
        0: underfitting. The z-scores take slices for independent, the interval takes patients. Floor: 0."""
        cells = KMeans(min(CELLS, len(self.training.rows)), n_init=3, random_state=0).fit(self.training.rows)
        mine, theirs = (cells.predict(side.rows) for side in (self.samples, self.holdout))

        kept = [cell for cell in range(cells.n_clusters)
                if min((mine == cell).sum(), (theirs == cell).sum()) >= FEWEST]

        def statistic(u: np.ndarray, v: np.ndarray) -> float:
            found, weights = [], []
            for here, there in ((mine == cell, theirs == cell) for cell in kept):
                if (m := u[here].sum()) and (n := v[there].sum()):
                    farther = auc(self.distance[here], self.null[there], u[here], v[there])
                    found.append((farther - 0.5) * np.sqrt(12 * m * n / (m + n + 1)))
                    weights.append(n)
            return float(np.average(found, weights=weights)) if found else float("nan")

        return self._score(statistic, self.samples.patients, self.holdout.patients).against(0.0, float("nan"))

    def concentration(self) -> Score:
        """Share of samples nearest to the one training patient who has most of them. Floor: the same of as
        many hold-out slices, drawn with replacement; ceiling: 1."""
        names, whose = np.unique(self.training.patients, return_inverse=True)
        _, index = self.holdout.nearest(self.training)
        generator = np.random.default_rng(self.options["seed"])
        draws = generator.integers(0, len(index), (50, len(self.index)))
        floors = [np.bincount(whose[index[drawn]]).max() / len(drawn) for drawn in draws]

        def largest(counts: np.ndarray) -> float:
            return float(np.bincount(whose[self.index], counts, len(names)).max() / counts.sum())

        return self._score(largest, self.samples.patients).against(float(np.mean(floors)), 1.0)

    def rows(self) -> list[dict[str, object]]:
        """Tidy rows of all of these, with the space's name behind each; no adversarial accuracy in a space that
        has learnt from training, for it compares training with itself."""
        measures = {"near_copy_rate": (self.near_copies, "lower"), "near_copy_excess": (self.near_copy_excess, "lower"),
                    "swapped_share": (self.swapped_share, "lower"), "authenticity": (self.authenticity, "higher"),
                    "neighbour_ratio": (self.neighbour_ratio, "higher"), "privacy_loss": (self.privacy_loss, "lower"),
                    "data_copying": (self.data_copying, "higher"), "concentration": (self.concentration, "lower")}
        if self.learnt:
            del measures["privacy_loss"]
        return [measure().row(f"{name}_{self.space}", "privacy", better) for name, (measure, better) in measures.items()]

    def _mean(self, values: np.ndarray) -> Score:
        return self._score(lambda counts: float(np.average(values, weights=counts)), self.samples.patients)

    def _score(self, statistic: Callable[..., float], *patients: np.ndarray) -> Score:
        return bootstrap(statistic, *patients, n=len(self.samples.rows), **self.options)


def _ranks(values: np.ndarray, reference: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(N,) share of `reference` (M,), each counted so often, that lies below each value."""
    order = np.argsort(reference, kind="stable")
    below = np.concatenate([[0], np.cumsum(counts[order])])
    return below[np.searchsorted(reference[order], values, "left")] / counts.sum()


def cluster_scores(samples: Slices, sides: Sides, space: Features) -> PatientScores:
    """Clusters of samples around one patient as an attack on samples alone: a patient's score is the number
    of samples of which he or she is the nearest, among members and non-members together, per slice of his or
    hers. Clusters that betray memory stand around members."""
    rows = space(samples.images)
    known = [Described(space(side.images), side.patients) for side in (sides.members, sides.nonmembers)]
    everyone = Described(np.concatenate([k.rows for k in known]), np.concatenate([k.patients for k in known]))
    _, index = Described(rows, np.arange(len(rows))).nearest(everyone)
    counts = pd.Series(everyone.patients[index]).value_counts()
    scores = [pd.Series(k.patients).groupby(k.patients).size().pipe(lambda n: counts.reindex(n.index, fill_value=0) / n)
              for k in known]
    return PatientScores(*(s.to_numpy(float) for s in scores), *(s.index.to_numpy() for s in scores),
                         ("nearest patient",))
