"""Attacks with shadow models: the same system, trained on other subsets of the patients, shows what a score
is worth.

Each shadow is a `Target`, that is, a `Run` on a random subset of the patients, and knows whom it has seen. A
score that a slice would get from any generator of this kind is no sign of membership; one that only
generators give that have seen it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cmri_lib.cohort.slices import Slices, refuse_overlap
from cmri_lib.errors import DataError
from cmri_lib.privacy.attack import Attack, Target, refuse_known

#: Shadows on a side of a slice below which that side is not used.
FEWEST = 2


@dataclass(frozen=True)
class _Shadowed(Attack):
    """An attack that asks shadows: `attack` gives the score, `shadows` the comparison."""

    attack: Attack
    shadows: tuple[Target, ...]

    def __post_init__(self) -> None:
        if len(self.shadows) < FEWEST:
            raise DataError(f"{len(self.shadows)} shadow models", field="shadows",
                            remedy=f"train at least {FEWEST}")

    def suits(self, target: Target) -> bool:
        return all(map(self.attack.suits, (target, *self.shadows)))

    def asked(self, slices: Slices) -> tuple[np.ndarray, np.ndarray]:
        """Scores (shadows, N, settings), and which of them have seen the slice's patient, (shadows, N)
        bool."""
        scores = np.stack([self.attack.scores(shadow, slices).to_numpy(float) for shadow in self.shadows])
        return scores, np.stack([np.isin(slices.patients, list(shadow.seen)) for shadow in self.shadows])


@dataclass(frozen=True)
class LiRA(_Shadowed):
    """Likelihood ratio of the score under two Gaussians: of shadows that have seen the slice, and of those
    that have not (Carlini et al. 2022, eq. 4 and algorithm 1). With few shadows the standard deviations are
    those of all slices together (their section VI.D). Where a slice has fewer than two shadows that have
    seen it, the attack is their offline one (section V.B): how far the score lies above those of shadows
    that have not.

    Args:
        everyone: the slices that the standard deviations are of, members and others together: an attacker
            does not know who is which, and two sides with deviations of their own would have scores on two
            scales.
    """

    everyone: Slices

    @property
    def name(self) -> str:
        return "lira"

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        own = self.attack.scores(target, slices)
        (scores, inside), (of_all, inside_all) = self.asked(slices), self.asked(self.everyone)
        return pd.DataFrame({setting: likelihood_ratio(own[setting].to_numpy(float), scores[..., k], inside,
                                                       spreads(of_all[..., k], inside_all))
                             for k, setting in enumerate(own)})


def likelihood_ratio(own: np.ndarray, scores: np.ndarray, inside: np.ndarray,
                     pooled: tuple[float, float | None]) -> np.ndarray:
    """(N,) log-likelihood ratio of `own` (N,) from `scores` (S, N) of shadows, of which `inside` (S, N) have
    seen the slice.

    Args:
        pooled: of `spreads`; how far own scores lie above the others' alone, if the second is None.

    Raises:
        DataError: if a slice has fewer than two shadows that have not seen it.
    """
    spread_out, spread_in = pooled
    if (~inside).sum(0).min() < FEWEST:
        raise DataError(f"a slice was left out by fewer than {FEWEST} shadows", field="shadows",
                        remedy="train more, each on half of the patients")
    far = (own - _mean(scores, ~inside)) / spread_out
    if spread_in is None:
        return far
    near = (own - _mean(scores, inside)) / spread_in
    return 0.5 * far**2 + np.log(spread_out) - 0.5 * near**2 - np.log(spread_in)


def spreads(scores: np.ndarray, inside: np.ndarray) -> tuple[float, float | None]:
    """Unbiased standard deviations, pooled over slices, of shadows (S, N) that have not seen a slice, and of
    those that have; None for these where a slice has fewer than two."""
    out, within = (_pooled(scores, kept) if kept.sum(0).min() >= FEWEST else None for kept in (~inside, inside))
    return (np.nan if out is None else out), within


def _mean(scores: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return np.where(kept, scores, 0).sum(0) / kept.sum(0)


def _pooled(scores: np.ndarray, kept: np.ndarray) -> float:
    squares = np.where(kept, (scores - _mean(scores, kept)) ** 2, 0).sum()
    return max(float(np.sqrt(squares / (kept.sum(0) - 1).sum())), 1e-12)


@dataclass(frozen=True)
class RMIA(_Shadowed):
    """Share of strangers z whose ratio p(z|θ) / p(z) the slice's own exceeds γ times (Zarifzadeh, Liu &
    Shokri, "Low-Cost High-Power Membership Inference Attacks", ICML 2024, arXiv 2312.03262, eq. 4). p(x) is
    the mean over shadows, as many that have seen x as not, or of the latter alone where too few have. A
    score is a density up to an unknown power, so means are geometric, and γ = 1.

    Args:
        population: strangers, whom neither the target nor a shadow has seen.
    """

    population: Slices

    @property
    def name(self) -> str:
        return "rmia"

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        refuse_overlap(self.population, slices, ("population", "slices"))
        for one in (target, *self.shadows):
            refuse_known(one, self.population, "to whom the population should be strangers")
        ratios = [self._ratios(target, some) for some in (slices, self.population)]
        return ratios[0].apply(lambda own: (own.to_numpy()[:, None] >= ratios[1][own.name].to_numpy()[None]).mean(1))

    def _ratios(self, target: Target, slices: Slices) -> pd.DataFrame:
        own = self.attack.scores(target, slices)
        scores, inside = self.asked(slices)
        kept = [side for side in (inside, ~inside) if side.sum(0).min() >= FEWEST]
        if not kept:
            raise DataError("slices with fewer than two shadows on either side", field="shadows",
                            remedy="train more shadows")
        means = [np.where(side[..., None], scores, 0).sum(0) / side.sum(0)[:, None] for side in kept]
        return own - sum(means) / len(means)
