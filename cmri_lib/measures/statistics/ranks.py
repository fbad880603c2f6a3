"""Do two measures put systems in one order? Spearman's rank correlation over systems, with its interval."""

from __future__ import annotations

import numpy as np

from cmri_lib.errors import DataError
from cmri_lib.measures.statistics.bootstrap import Score, bootstrap


def rank_correlation(first: np.ndarray, second: np.ndarray, *, seed: int = 0, resamples: int = 1000) -> Score:
    """Spearman's rank correlation of two measures of the same systems, and a 95 % bootstrap interval over *systems*.

    The interval speaks of other systems like these, not of other patients. Systems that share a network are not independent, so
    it is rather too narrow.

    Args:
        first, second: (N,) one value per system; systems that lack one of them are left out.

    Returns:
        the correlation, between the floor 0 (no common order) and the ceiling 1; n is the number of systems. NaN where all
        values of a measure are equal.

    Raises:
        DataError: unless both have one value per system, or if no system has both.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape or first.ndim != 1:
        raise DataError(f"measures of shapes {first.shape} and {second.shape}", field="measures",
                        remedy="give one value per system, NaN where it is not known")
    both = np.isfinite(first) & np.isfinite(second)
    if not both.any():
        raise DataError("no system has both measures", field="measures", remedy="run the notebooks that measure them")
    one, other = first[both], second[both]

    values = np.stack([one, other])
    smaller = (values[:, None] < values[:, :, None]) + (values[:, None] == values[:, :, None]) / 2

    def correlation(counts: np.ndarray) -> float:
        # As scipy.stats.spearmanr where each system stands there so many times, without sorting each resample: a rank, less the
        # mean of all ranks, is the number of smaller values and half that of equal ones, less half of all.
        ranks = smaller @ counts - counts.sum() / 2
        spread, common, _, other_spread = (ranks * counts @ ranks.T).ravel()
        return float(common / np.sqrt(spread * other_spread)) if spread and other_spread else float("nan")

    return bootstrap(correlation, np.arange(both.sum()), seed=seed, resamples=resamples).against(0.0, 1.0)
