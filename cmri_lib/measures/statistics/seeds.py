"""Two-level bootstrap: 95 % intervals over patients and over trainings of one system that differ by their seed.

The score of a system is μ + a_s + b_p + e_sp: trainings s differ by a_s, patients p by b_p. One training says nothing of a_s,
and an interval over patients alone is then about that training. The estimate is the mean over the trainings.

A draw takes patients with replacement, the same ones for every training since all are judged on one cohort, and
trainings with replacement (the pigeonhole bootstrap: Owen, Annals of Applied Statistics 1, 2007). Two corrections make
it fit for three trainings:

- S trainings, drawn with replacement, vary by (S − 1)/S too little. The part of a draw that is due to the trainings is
  multiplied by √(S/(S − 1)), so that its variance is unbiased (Davison & Hinkley 1997, section 3.8).
- A variance from S trainings is itself uncertain. The interval is widened by the ratio of the quantiles of Student's t and
  the normal, with the degrees of freedom of Satterthwaite (Biometrics Bulletin 2, 1946): S − 1 where trainings differ much,
  nearly those of the patients where they do not.

What the interval can cover: other patients of this cohort's kind, and other seeds of the same training on the same data.
What it cannot: other training patients, settings or cohorts. **Two** trainings that differ by chance very little claim
a precision which they do not have, so that it covers less than its 95 %; from three on it comes close.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from cmri_lib.measures.statistics.bootstrap import MINIMUM, Score, bootstrap, patient_draws, weighted_mean

#: Takes one (N_k,) count per set of slices.
Statistic = Callable[..., float]


def bootstrap_seeds(statistics: Sequence[Statistic], *patients: np.ndarray, n: int | None = None, resamples: int = 1000,
                    seed: int = 0, centred: bool = False, spread: float = 1.0) -> Score:
    """Mean over trainings, with its interval over patients and trainings. Of one training it is `bootstrap`.

    Args:
        statistics: one per training; each takes the counts of **all** sets, in the order of `patients`.
        patients, n, resamples, seed, centred: as for `bootstrap`.
        spread: factor on the deviation that is due to the trainings, where `statistics` show only a part of it.

    Returns:
        the score; `seeds` is the number of trainings, `df` the degrees of freedom.
    """
    options = {"n": n, "resamples": resamples, "seed": seed, "centred": centred}
    trainings, fewest = len(statistics), min(len(np.unique(p)) for p in patients)
    if trainings == 1 or fewest < MINIMUM:
        score = bootstrap(lambda *counts: float(np.mean([s(*counts) for s in statistics])), *patients, **options)
        return replace(score, seeds=trainings)
    values = np.array([s(*(np.ones(len(p), int) for p in patients)) for s in statistics])
    draws = np.array([[s(*counts) for s in statistics] for counts in patient_draws(patients, resamples, seed)], float)
    draws = draws[np.isfinite(draws).all(axis=1)]
    value, n = float(values.mean()), fewest if n is None else n
    if len(draws) < 2:
        return Score(value, float("nan"), float("nan"), n, seeds=trainings)
    over_patients = draws.mean(axis=1)
    generator = np.random.default_rng([seed, trainings])
    drawn = generator.multinomial(trainings, np.full(trainings, 1 / trainings), len(draws)) / trainings
    between = ((draws * drawn).sum(axis=1) - over_patients) * spread * np.sqrt(trainings / (trainings - 1))
    shift = value - over_patients.mean() if centred else 0.0
    limits = np.quantile(over_patients + between, [0.025, 0.975]) + shift
    df = satterthwaite([spread**2 * values.var(ddof=1) / trainings, over_patients.var(ddof=1)], [trainings - 1, fewest - 1])
    low, high = value + (limits - value) * stats.t.ppf(0.975, df) / stats.norm.ppf(0.975)
    return Score(value, min(float(low), value), max(float(high), value), n, seeds=trainings, df=df)


def mean_over_seeds(values: Sequence[np.ndarray], patients: np.ndarray, **options: object) -> Score:
    """Mean of one value per slice or volume, (N,) for each training on the same slices; NaN values are left out."""
    return bootstrap_seeds([lambda counts, one=one: weighted_mean(one, counts) for one in values], patients, **options)


def satterthwaite(variances: Sequence[float], df: Sequence[float]) -> float:
    """Degrees of freedom of a sum of independent estimates of variance; infinite if all are 0."""
    spread = sum(v**2 / d for v, d in zip(variances, df))
    return float(sum(variances) ** 2 / spread) if spread > 0 else float("inf")
