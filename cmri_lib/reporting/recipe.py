"""What to do with few patients: advice in words, composed from the measured differences and nothing else.

The best of many arms is best partly by chance. So an arm counts as better (or worse) than real slices alone
only if it still is after Holm's correction for the number of arms.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.reporting.claims import LEVEL, evidence, holm

BETTER, WORSE, UNCLEAR = "better", "worse", "unclear"


def verdicts(differences: Sequence[Score]) -> list[str]:
    """For each difference to real alone, where higher is better: `BETTER`, `WORSE` or `UNCLEAR`, after Holm's correction for
    their number."""
    tails = np.array([evidence(score, "above") for score in differences]).reshape(-1, 2)
    sure = holm(2 * tails.min(axis=1)) < LEVEL if len(tails) else []
    return [UNCLEAR if not certain else BETTER if up < down else WORSE for (up, down), certain in zip(tails, sure)]


def recipe(patients: int, measured: int, real: Score, arms: Iterable[tuple[str, Score]], more: Iterable[tuple[int, Score]]
           ) -> list[str]:
    """Sentences for somebody with so many patients.

    Args:
        patients: how many the reader has. measured: how many the arms had that come nearest.
        real: Dice of a segmenter of these patients' real slices alone.
        arms: (name, difference in Dice to real alone) of every other arm of these patients.
        more: (patients, Dice of a segmenter of their real slices alone), for all other numbers that were measured.
    """
    arms = sorted(arms, key=lambda arm: -arm[1].value)
    judged = list(zip(arms, verdicts([score for _, score in arms])))
    lines = [f"You have {patients} patients; measured with {measured}. Their real slices alone give a Dice of "
             f"{_number(real, '.3f')}."]
    good, bad = ([arm for arm, verdict in judged if verdict == wanted] for wanted in (BETTER, WORSE))
    if good:
        lines.append(f"Do: {good[0][0]}, {_points(good[0][1])}.")
        lines += [f"Also better: {_list(good[1:])}."] if good[1:] else []
    elif arms:
        lines.append(f"No way to use samples is surely better than real slices alone. The highest of {len(arms)} is "
                     f"{arms[0][0]}, {_points(arms[0][1])}; expect no gain from it.")
    lines += [f"Do not: {_list(bad[::-1])}."] if bad else []
    larger = sorted((count, score) for count, score in more if count > measured)
    if larger:
        count, score = larger[0]
        gain, best = score.value - real.value, max([score.value for _, score in good], default=0.0)
        compared = "" if not good else (", more than samples give" if gain > best else ", no more than samples give")
        lines.append(f"Labelling more patients: {count} in the place of {measured} give {100 * gain:+.1f} Dice "
                     f"points{compared}.")
    return lines


def differences_of(table: pd.DataFrame, metric: str = "downstream_dice") -> list[tuple[str, Score]]:
    """(arm, difference) from a table with arm, metric, value, low, high, n; each arm once."""
    rows = table[table["metric"] == metric].drop_duplicates("arm")
    return [(row.arm, Score(row.value, row.low, row.high, int(row.n))) for row in rows.itertuples()]


def _number(score: Score, form: str) -> str:
    return f"{score.value:{form}} [{score.low:{form}}, {score.high:{form}}]"


def _points(score: Score) -> str:
    return (f"{100 * score.value:+.1f} Dice points [{100 * score.low:+.1f}, {100 * score.high:+.1f}]")


def _list(arms: Sequence[tuple[str, Score]]) -> str:
    return "; ".join(f"{name}, {_points(score)}" for name, score in arms)
