"""How much of a privacy loss an attacker can prove: a lower bound of ε from one training.

Steinke, Nasr & Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023, arXiv 2305.08846. Each
of m patients, the canaries, is included with probability ½, independently. The attacker sees the result and
guesses of some of them whether they were included; the others are passed over. If the training is (ε,
δ)-private, the number of right guesses is hardly larger than a binomial variable with success probability e^ε
/ (1 + e^ε). Many right guesses thus refute small ε.
"""

from __future__ import annotations

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from cmri_lib.errors import DataError

#: The largest ε that is tried: no number of canaries that a cohort has proves as much.
LARGEST = 50.0


def right_guesses(scores: np.ndarray, included: np.ndarray, guesses: int) -> int:
    """How many guesses are right: "included" for the ⌈guesses / 2⌉ canaries that score highest, "left out"
    for as many, or one less, that score lowest. The number of guesses must not depend on the answers.

    Args:
        scores: (m,), higher for likelier members. included: (m,) bool, what the coins said.

    Raises:
        DataError: if there are more guesses than canaries.
    """
    scores, included = np.asarray(scores, float), np.asarray(included, bool)
    if not 0 <= guesses <= len(scores):
        raise DataError(f"{guesses} guesses about {len(scores)} canaries", field="guesses",
                        remedy="guess each at most once")
    order, high = np.argsort(-scores, kind="stable"), -(-guesses // 2)
    low = guesses - high
    return int(included[order[:high]].sum() + (~included[order[len(order) - low:]]).sum())


def p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Bound on the chance that an (ε, δ)-private training lets so many guesses be right (their theorem 5.2):
    β + 2 m δ α, where β = P[B ≥ v] of a binomial B with `guesses` trials and success e^ε / (1 + e^ε), and
    α = max over i of P[v > B ≥ v − i] / i.

    Raises:
        DataError: unless 0 ≤ right ≤ guesses ≤ canaries.
    """
    if not 0 <= right <= guesses <= canaries:
        raise DataError(f"{right} right of {guesses} guesses about {canaries} canaries", field="guesses",
                        remedy="give numbers in this order")
    binomial = stats.binom(guesses, 1 / (1 + np.exp(-epsilon)))
    below = np.cumsum(binomial.pmf(np.arange(right - 1, -1, -1)))  # P[v > B ≥ v − i] for i = 1 … v
    alpha = (below / np.arange(1, right + 1)).max() if right else 0.0
    return float(min(1.0, binomial.sf(right - 1) + 2 * canaries * delta * alpha))


def epsilon_lower_bound(canaries: int, guesses: int, right: int, delta: float,
                        confidence: float = 0.95) -> float:
    """The largest ε that the guesses refute: with `confidence`, no smaller ε holds at this δ. 0 if they
    refute none."""
    def excess(epsilon: float) -> float:
        return p_value(canaries, guesses, right, epsilon, delta) - (1 - confidence)

    if excess(0.0) >= 0:
        return 0.0
    return LARGEST if excess(LARGEST) < 0 else float(brentq(excess, 0.0, LARGEST, xtol=1e-6))
