"""95 % bootstrap intervals over patients, for any statistic of any number of sets.

Slices of one patient are not independent, so whole patients are drawn with replacement (Davison & Hinkley,
*Bootstrap Methods and their Application*, 1997, section 3.8). A draw is a vector of counts, one per slice: how often
the slice's patient was drawn. A statistic is a function of those counts, so what is costly (features, kernels,
distances) is computed once.

The interval speaks of the patients, not of the generator's training: `seeds` adds trainings with other seeds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy.stats import binomtest

from cmri_lib.errors import DataError

#: Fewer patients than this give no interval worth printing.
MINIMUM = 3


@dataclass(frozen=True)
class Score:
    """A number that can be read: with its interval, its size, and what nothing and everything would score.

    Attributes:
        value, low, high: the statistic and its 95 % interval; NaN and NaN where there is none.
        n: what was counted; every measure says in its docstring whether that is slices, patients or repeats.
        floor: the score of real data against real data of the same size.
        ceiling: the score of copied training images, or the bound of the metric.
        seeds: trainings behind it. df: degrees of freedom of the interval; infinite for plain percentiles.
    """

    value: float
    low: float
    high: float
    n: int
    floor: float = float("nan")
    ceiling: float = float("nan")
    seeds: int = 1
    df: float = float("inf")

    def against(self, floor: float, ceiling: float) -> Score:
        """The same score with its floor and ceiling."""
        return replace(self, floor=float(floor), ceiling=float(ceiling))

    def within(self, least: float, most: float) -> Score:
        """The same score, its interval cut at the ends of the scale that its values have."""
        return replace(self, low=max(self.low, least), high=min(self.high, most))

    def __neg__(self) -> Score:
        """A difference, taken the other way round."""
        value, low, high, floor, ceiling = (0.0 - x for x in (self.value, self.high, self.low, self.floor, self.ceiling))
        return replace(self, value=value, low=low, high=high, floor=floor, ceiling=ceiling)  # 0 has no sign

    def row(self, metric: str, axis: str, better: str) -> dict[str, object]:
        """A tidy row; the caller adds dataset, profile, system, family and conditioning."""
        columns = {name: value for name, value in asdict(self).items() if name != "df"}
        return {"axis": axis, "metric": metric, **columns, "better": better}


def patient_draws(patients: Sequence[np.ndarray], resamples: int, seed: int) -> Iterator[list[np.ndarray]]:
    """Draw patients with replacement, `resamples` times; yield for each set the (N,) counts of its slices.

    A patient in several sets (samples that follow the masks of the test patients, scored against the test patients)
    is drawn once for all of them: their difference is paired. Patients are drawn within strata of equal membership,
    so that no set is ever empty.
    """
    names, codes = np.unique(np.concatenate([np.asarray(p).astype(str) for p in patients]), return_inverse=True)
    codes = np.split(codes, np.cumsum([len(p) for p in patients])[:-1])
    membership = np.stack([np.isin(np.arange(len(names)), c) for c in codes], axis=1)
    strata = [np.flatnonzero((membership == kind).all(1)) for kind in np.unique(membership, axis=0)]
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        counts = np.zeros(len(names), int)
        for members in strata:
            counts[members] = generator.multinomial(len(members), np.full(len(members), 1 / len(members)))
        yield [counts[c] for c in codes]


def bootstrap(statistic: Callable[..., float], *patients: np.ndarray, n: int | None = None, resamples: int = 1000,
              seed: int = 0, level: float = 0.95, centred: bool = False) -> Score:
    """Percentile bootstrap over patients of a statistic of one set, of a pair (real, synthetic), or of more.

    ``bootstrap(f, a)`` for one set, ``bootstrap(f, real, synthetic)`` for a pair; a paired difference of two systems is
    ``bootstrap(lambda r, s, t: f(r, s) - f(r, t), real, first, second)``.

    Args:
        statistic: takes one (N_k,) count per set, in the order of `patients`; NaN results of a draw are left out.
        patients: for each set the (N_k,) patient of every slice.
        n: what to print as the size; the number of patients of the smallest set by default.
        centred: shift the draws so that their mean lies on the value. For statistics whose bias falls with the sample
            size, such as the Fréchet distance: a draw repeats patients, so it holds fewer distinct ones, and its bias
            comes on top of the value's own. The interval is then one for the expected value **at this n**. Measured on
            Gaussians (15–30 patients of 10 correlated slices, 16 and 64 dimensions, distances from 0 to 10): it covers
            in 92–100 % of trials, the plain percentile interval in 0–69 %, the basic bootstrap in 0–68 %.

    Returns:
        the value with its interval; of fewer than `MINIMUM` patients in a set the value alone, with a warning that says so.

    Raises:
        DataError: if a set is empty.
    """
    fewest = min(len(np.unique(p)) for p in patients)
    if not fewest:
        raise DataError("a set without patients has no score", field="patient", remedy="check the splits")
    value = float(statistic(*(np.ones(len(p), int) for p in patients)))
    if fewest < MINIMUM:
        warnings.warn(f"no interval: {fewest} patient{'s' * (fewest > 1)}, and it takes {MINIMUM}", stacklevel=2)
        return Score(value, float("nan"), float("nan"), fewest if n is None else n)
    draws = np.array([statistic(*counts) for counts in patient_draws(patients, resamples, seed)], float)
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return Score(value, float("nan"), float("nan"), fewest if n is None else n)
    shift = value - draws.mean() if centred else 0.0
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) + shift
    # A median, or a skewed statistic of few patients, can fall just outside its own percentiles.
    return Score(value, min(float(low), value), max(float(high), value), fewest if n is None else n)


def exact_at_an_end(score: Score) -> Score:
    """A share that is 0 or 1 in every draw, with an exact interval in place of one without width: resampling cannot know of
    a patient on the other side whom nobody has met. It is that of Clopper & Pearson (Biometrika 26, 1934) for `n` independent
    tries, all with the same outcome. Of an AUC of 1 these are as many pairs of a member and a non-member, none in two pairs.
    """
    if score.value not in (0, 1) or score.low != score.high:
        return score
    found = binomtest(round(score.n * score.value), score.n).proportion_ci(method="exact")
    return replace(score, low=float(found.low), high=float(found.high))


def weighted_mean(values: np.ndarray, counts: np.ndarray) -> float:
    """Mean of `values` (N,) by `counts`, NaN left out; NaN if nothing is left."""
    known = np.isfinite(values) & (counts > 0)
    return float(np.average(values[known], weights=counts[known])) if known.any() else float("nan")


def mean_score(values: np.ndarray, patients: np.ndarray, **options: object) -> Score:
    """Mean of one value per slice or per volume, with its interval over patients. NaN values are left out."""
    return bootstrap(lambda counts: weighted_mean(values, counts), patients, **options)


def paired_difference(first: np.ndarray, second: np.ndarray, patients: np.ndarray, **options: object) -> Score:
    """Mean of ``first − second``, measured on the same slices or volumes, with its interval over patients."""
    return mean_score(first - second, patients, **options)


def score_difference(first: Score, second: Score) -> Score:
    """``first − second`` of two scores of which only value and interval are known: variance recovered from the limits
    (MOVER; Zou & Donner, Statistics in Medicine 27, 2008, eq. 4). Exact interval if they are independent; too wide, so
    cautious, if they rise and fall with the same patients, as two systems judged by one cohort do."""
    def limit(a: Score, b: Score) -> float:  # a's own side and b's opposite one pull the limit away from the value
        return float(np.hypot(a.value - a.low, b.high - b.value))

    value = first.value - second.value
    return Score(value, value - limit(first, second), value + limit(second, first), n=min(first.n, second.n),
                 seeds=min(first.seeds, second.seeds), df=min(first.df, second.df))
