"""How any two sets of slices are compared: described slice by slice, then set against set, with floor and ceiling.

A `Measure` says what is computed for every slice (`embed`: features, a spectrum, the sizes of the heart) and what
for the two sets (`statistics`: functions of how often each slice is drawn). Everything else is the same for all:

- the interval, by the bootstrap over patients;
- the **floor**, what groups of real patients score against other real patients, at the same numbers of slices;
- the **ceiling**, what a generator scores that hands out training images;
- the **difference** of two systems, in which both meet the same draw of real patients;
- what cannot be compared is **refused**: sets of other sizes or intensities, and sets too small to have a value.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from cmri_lib.cohort.slices import Slices, concatenate, refuse_overlap
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.statistics.seeds import bootstrap_seeds

#: (N,) counts of the real slices, (M,) counts of the samples → value.
Statistic = Callable[[np.ndarray, np.ndarray], float]
#: Samples of one training of a system, or of each of several that differ by their seed.
Banks = Slices | Sequence[Slices]
#: How far beyond [−1, 1] an image may reach by rounding.
TOLERANCE = 1.0e-3
#: Least and largest value of a share, and of a distance.
SHARE, DISTANCE = (0.0, 1.0), (0.0, math.inf)
#: Which values of a metric are better.
DIRECTIONS = ("lower", "higher", "zero")


@dataclass(frozen=True)
class Metric:
    """One number that a measure gives.

    Attributes:
        name: as printed, the feature space included.
        better: "lower", "higher", or "zero" where both signs are faults.
        bound: the ceiling where no training slices are given.
        centred: see `bootstrap`; for distances whose bias depends on the number of distinct patients.
        scale: the least and the largest value that it can have. Centring can push the interval beyond, and so can the few
            degrees of freedom of a few trainings.
    """

    name: str
    better: str
    bound: float = 0.0
    centred: bool = False
    scale: tuple[float, float] = (-math.inf, math.inf)

    def __post_init__(self):
        if self.better not in DIRECTIONS:
            raise ParameterError(f"{self.better!r}", field=f"better of {self.name}", remedy=f"one of {', '.join(DIRECTIONS)}")


@dataclass(frozen=True)
class Embedding:
    """What is known of N slices: `values` (N, ...) and `patients` (N,)."""

    values: np.ndarray
    patients: np.ndarray

    def take(self, index: np.ndarray) -> Embedding:
        """The rows at `index`."""
        return Embedding(self.values[index], self.patients[index])


@dataclass(frozen=True)
class Measure:
    """A way to compare two sets, giving one or several metrics.

    Attributes:
        metrics: what comes out, in order.
        embed: slices → (N, ...) array, row by row.
        statistics: described real and synthetic sets → one `Statistic` per metric.
        axis: of the table of results.
        most_repeats: bound on the groups behind floor and ceiling, for measures that are slow.
    """

    metrics: tuple[Metric, ...]
    embed: Callable[[Slices], np.ndarray]
    statistics: Callable[[Embedding, Embedding], Sequence[Statistic]]
    axis: str = "fidelity"
    most_repeats: int = 1000

    def of(self, **sets: Slices) -> list[Embedding]:
        """The sets as this measure sees them, in order; raises DataError as `refuse_unlike`; ParameterError if `embed` gives no
        array with a row for each slice."""
        refuse_unlike(**sets)
        return [Embedding(self._rows(slices, name), slices.patients) for name, slices in sets.items()]

    def _rows(self, slices: Slices, name: str) -> np.ndarray:
        rows = self.embed(slices)
        if not isinstance(rows, np.ndarray) or rows.shape[:1] != (len(slices),):
            found = f"shape {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
            raise ParameterError(f"{found} for the {len(slices)} slices of {name}", field=f"embed of {self.metrics[0].name}",
                                 remedy="return an array of numpy with a row per slice")
        return rows

    def checked_statistics(self, real: Embedding, synthetic: Embedding) -> list[Statistic]:
        """`statistics`, one per metric. Raises ParameterError if they are not as many functions as there are metrics."""
        given = self.statistics(real, synthetic)
        found = list(given) if isinstance(given, Iterable) else []
        functions = sum(map(callable, found))
        if not len(found) == functions == len(self.metrics):
            kind = f"{type(given).__name__} of {len(found)}, {functions} of them functions"
            raise ParameterError(f"{kind}, for {len(self.metrics)} metrics", field=f"statistics of {self.metrics[0].name}",
                                 remedy="return one function of the counts (u, v) per metric, in the order of metrics")
        return found

    def values(self, real: Embedding, synthetic: Embedding) -> dict[str, float]:
        """Metric → value, without an interval. Raises DataError if a set is too small for it."""
        if not (len(real.values) and len(synthetic.values)):
            raise DataError("0 images on one side", field="images", remedy="score more slices")
        every = np.ones(len(real.values), int), np.ones(len(synthetic.values), int)
        return {m.name: s(*every) for m, s in zip(self.metrics, self.checked_statistics(real, synthetic))}


def compare(real: Slices, synthetic: Banks, measure: Measure, *, reference_real: Slices | None = None,
            training: Slices | None = None, seed: int = 0, resamples: int = 500, repeats: int = 20,
            floor: Mapping[str, Score] | None = None, ceiling: Mapping[str, float] | None = None
            ) -> list[dict[str, object]]:
    """All metrics of `measure` for `synthetic` against `real`, as tidy rows with intervals, floor and ceiling.

    Args:
        real: test slices.
        synthetic: samples, or a list of the samples of several trainings of one system, whose mean is scored (`seeds`);
            `patient` is the patient whose mask a sample follows, or a name of its own. Samples that
            follow the masks of the patients of `real` share these patients' peculiarities and can score below the
            floor, which is between different patients; masks of other patients are the fairer condition.
        reference_real: further real patients for the floor, see `floors`.
        training: training slices, for the ceiling; without them it is the metrics' bound.
        resamples: bootstrap draws of patients.
        repeats: random choices of patients behind each floor and ceiling, which are their means.
        floor, ceiling: from `floors` and `ceilings` at this number of samples, if known already.

    Returns:
        One row per metric; n is the number of slices of the smaller set, df (`Score`) what a p-value takes beside the
        interval. Where both signs are faults (`Metric.better`
        is "zero"), the column `better` holds the direction that leads from the value towards 0.

    Raises:
        SplitError: if a patient of `real` is also in `reference_real` or `training`.
        DataError: if the sets are unlike in size or intensities, or hold too few slices or patients for a value. Where
            they are too few for a floor, a ceiling or an interval only, that is NaN, and a warning says so.
    """
    banks = trainings(synthetic)
    size = min(map(len, banks))
    refuse_too_few(min(len(real), size))
    x, *ys = measure.of(real=real, **_numbered("synthetic", banks))
    if floor is None:
        floor = floors(real, size, measure, reference_real=reference_real, seed=seed, repeats=repeats)
    if ceiling is None and training is None:
        ceiling = {m.name: m.bound for m in measure.metrics}
    elif ceiling is None:
        ceiling = ceilings(real, training, size, measure, seed=seed, repeats=repeats)
    rows = []
    for metric, *statistics in zip(measure.metrics, *(measure.checked_statistics(x, y) for y in ys)):
        each = [lambda real_counts, *counts, s=s, k=k: s(real_counts, counts[k]) for k, s in enumerate(statistics)]
        score = bootstrap_seeds(each, x.patients, *(y.patients for y in ys), n=min(len(real), size), resamples=resamples,
                                seed=seed, centred=metric.centred).within(*metric.scale)
        towards = metric.better if metric.better != "zero" else "higher" if score.value < 0 else "lower"
        row = score.against(floor[metric.name].value, ceiling[metric.name]).row(metric.name, measure.axis, towards)
        rows.append(row | {"df": score.df})
    return rows


def floors(real: Slices, size: int, measure: Measure, *, reference_real: Slices | None = None, seed: int = 0,
           repeats: int = 20) -> dict[str, Score]:
    """Real against real: every metric between random groups of patients of ``len(real)`` and `size` slices.

    The patients come from `real` and `reference_real` together; groups are drawn anew each time, so the floor does not
    hang on one lucky pair of groups. Where there are fewer slices than are asked for, both groups shrink in
    proportion; n, the slices of the smaller group, says so. The interval is that of the partitions.

    Returns:
        metric → mean over the partitions, NaN where there are too few patients to part them, with a warning.

    Raises:
        SplitError: if `real` and `reference_real` share a patient.
    """
    pool = real
    if reference_real is not None:
        refuse_overlap(real, reference_real, ("real", "reference_real"))
        pool = concatenate([real, reference_real])
    (described,), generator = measure.of(real=pool), np.random.default_rng(seed)
    parts = [patient_partition(pool.patients, (len(real), size), generator)
             for _ in range(min(repeats, measure.most_repeats))]
    n = min(len(part) for pair in parts for part in pair)
    drawn = _drawn(measure, ((described.take(first), described.take(second)) for first, second in parts), "floor")
    return {m.name: Score(float(np.mean(values)), *np.quantile(values, [0.025, 0.975]).tolist(), n=n)
            for m in measure.metrics for values in [[d[m.name] for d in drawn]]}


def ceilings(real: Slices, training: Slices, size: int, measure: Measure, *, seed: int = 0, repeats: int = 20
             ) -> dict[str, float]:
    """What a generator scores that hands out `size` slices of training patients: near the floor for no work at all.

    Raises:
        SplitError: if `real` and `training` share a patient.
    """
    refuse_overlap(real, training, ("real", "training"))
    (x, copied), generator = measure.of(real=real, training=training), np.random.default_rng(seed)
    parts = [patient_partition(training.patients, (size, 0), generator)[0]
             for _ in range(min(repeats, measure.most_repeats))]
    drawn = _drawn(measure, ((x, copied.take(part)) for part in parts), "ceiling")
    return {m.name: float(np.mean([d[m.name] for d in drawn])) for m in measure.metrics}


def _drawn(measure: Measure, pairs: Iterable[tuple[Embedding, Embedding]], bound: str) -> list[dict[str, float]]:
    """The values of `measure` for each pair; where a pair is too small for a value, one draw of NaN, and a warning."""
    try:
        return [measure.values(*pair) for pair in pairs]
    except DataError as error:
        warnings.warn(f"no {bound} of {measure.metrics[0].name}: {error.problem}", stacklevel=3)
        return [{metric.name: float("nan") for metric in measure.metrics}]


def differences(real: Slices, first: Banks, second: Banks, measure: Measure, *, seed: int = 0, resamples: int = 500
                ) -> dict[str, Score]:
    """Metric → its value for `first` minus its value for `second`, with a paired interval.

    Both systems meet the same draw of real patients, and of the patients whose masks both follow, so what is common to
    them cancels. n is the number of slices of the smallest set. Of systems with several trainings each, the k-th are
    compared with each other: they have the same seed, and often start from the same pretrained network.

    Raises:
        DataError: as `compare`, or if the systems differ in the number of their trainings.
    """
    ones, others = paired_trainings(first, second)
    smallest = min(map(len, (real, *ones, *others)))
    refuse_too_few(smallest)
    x, *ys = measure.of(real=real, **_numbered("first", ones), **_numbered("second", others))
    by_metric = zip(measure.metrics, *(measure.checked_statistics(x, y) for y in ys))
    found, count = {}, len(ones)
    for metric, *statistics in by_metric:
        each = [lambda u, *counts, k=k, s=statistics: s[k](u, counts[k]) - s[count + k](u, counts[count + k])
                for k in range(count)]
        found[metric.name] = bootstrap_seeds(each, x.patients, *(y.patients for y in ys), n=smallest, resamples=resamples,
                                             seed=seed, centred=metric.centred)
    return found


def trainings(banks: Banks) -> list[Slices]:
    """The samples of one training, or of several, as a list. Raises DataError if there are none."""
    found = [banks] if isinstance(banks, Slices) else list(banks)
    if not found:
        raise DataError("no samples", field="synthetic", remedy="give the samples of at least one training")
    return found


def paired_trainings(first: Banks, second: Banks) -> tuple[list[Slices], list[Slices]]:
    """`trainings` of two systems; raises DataError unless there are as many of both."""
    ones, others = trainings(first), trainings(second)
    if len(ones) != len(others):
        raise DataError(f"{len(ones)} trainings of the first system, {len(others)} of the second", field="seeds",
                        remedy="give samples of the same seeds of both")
    return ones, others


def _numbered(name: str, banks: Sequence[Slices]) -> dict[str, Slices]:
    return {name if k == 0 else f"{name} {k + 1}": bank for k, bank in enumerate(banks)}


def patient_partition(patients: np.ndarray, sizes: tuple[int, int], generator: np.random.Generator
                      ) -> tuple[np.ndarray, np.ndarray]:
    """Indices of two groups of slices without a common patient, of `sizes`, or in proportion if there are too few.

    Whole patients are taken in random order for the first group, of which the last gives only as many slices as are still
    wanted. All others give the second group a slice each in turn, until there are enough: samples are more independent than
    the slices of a patient, and one who was scanned several times would be the whole of a small group. The second group has at
    least two patients where there are four.
    """
    shrink = min(1.0, len(patients) / sum(sizes))
    order = generator.permutation(np.unique(patients))
    slices = [np.flatnonzero(patients == p) for p in order]
    wanted = int(sizes[0] * shrink)
    ends = np.cumsum([len(s) for s in slices])
    cut = int(np.searchsorted(ends, wanted)) + 1
    cut = min(cut, len(slices) - min(2, len(slices) // 2)) if sizes[1] else cut  # of one patient nothing can be held out
    first = np.concatenate([np.array([], int), *slices[:cut]])
    turns = zip_longest(*(generator.permutation(s).tolist() for s in slices[cut:]))
    second = np.array([place for turn in turns for place in turn if place is not None], int)
    return first[:wanted], second[:int(sizes[1] * shrink)]


def refuse_unlike(**sets: Slices) -> None:
    """Raise DataError if a set is empty, or sets of images differ in size or intensities: in pixels, in not lying within
    [−1, 1], or in that some begin at exactly 0, as images in [0, 1] do, and others at −1. Images that are all of one
    value, as where there are only masks, have no range."""
    first, begins = next(iter(sets)), {}
    for name, slices in sets.items():
        if not len(slices):
            raise DataError("0 images to measure", field=name, remedy="check the splits, or draw samples")
        if slices.size != sets[first].size:
            raise DataError(f"images of {slices.size} px, those of {first} of {sets[first].size}", field=name,
                            remedy="preprocess both alike, or resample one")
        low, high = float(slices.images.min()), float(slices.images.max())
        if low < high:
            begins[name] = low
        if low < -1 - TOLERANCE or high > 1 + TOLERANCE:
            raise DataError(f"images reach from {low:.6g} to {high:.6g}, not within [-1, 1]", field=name,
                            remedy="scale them: preprocess.normalise, or Slices.from_arrays(..., value_range=(low, high))")
    if (nought := [name for name, low in begins.items() if low == 0]) and min(begins.values()) < -0.5:
        raise DataError(f"images begin at 0, as in [0, 1], those of {min(begins, key=begins.get)} at -1", field=nought[0],
                        remedy="scale them: Slices.from_arrays(..., value_range=(0, 1))")


def refuse_one_patient(*sets: Embedding) -> None:
    """Raise DataError if a set has one patient, for measures that compare slices of different patients."""
    if any(len(np.unique(known.patients)) < 2 for known in sets):
        raise DataError("all slices of one set are of one patient", field="patient", remedy="score at least two, better 10")


def refuse_too_few(images: int) -> None:
    """Raise DataError below two images."""
    if images < 2:
        raise DataError(f"{images} images have no covariance", field="images", remedy="score at least two, better 200")
