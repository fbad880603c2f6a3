"""The recipe says what the differences say: nothing is recommended that chance explains."""

from __future__ import annotations

import pandas as pd

from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.reporting.recipe import BETTER, UNCLEAR, WORSE, differences_of, recipe, verdicts


def score(value: float, errors: float) -> Score:
    """A difference that lies so many standard errors from 0."""
    half = 1.96 * abs(value / errors)
    return Score(value, value - half, value + half, n=20)


REAL = Score(0.80, 0.78, 0.82, n=20)


def test_an_arm_is_better_only_after_the_correction_for_their_number() -> None:
    assert verdicts([score(0.02, 1.9)]) == [UNCLEAR] and verdicts([score(0.02, 2.0)]) == [BETTER]
    assert verdicts([score(0.02, 2.6)]) == [BETTER] and verdicts([score(-0.02, 2.6)]) == [WORSE]
    assert verdicts([score(0.02, 2.6), *(score(0.01, 0.5) for _ in range(19))])[0] == UNCLEAR
    assert verdicts([Score(0.1, float("nan"), float("nan"), n=2)]) == [UNCLEAR] and verdicts([]) == []


def test_the_best_sure_arm_is_recommended_and_harm_is_named() -> None:
    arms = [("alone", score(-0.05, 8)), ("mixed", score(0.02, 6)), ("large", score(0.03, 0.5)), ("half", score(0.01, 7))]
    text = recipe(20, 18, REAL, arms, [(9, REAL), (72, Score(0.85, 0.84, 0.86, n=20)), (36, Score(0.81, 0.8, 0.82, n=20))])
    assert text[0] == "You have 20 patients; measured with 18. Their real slices alone give a Dice of 0.800 [0.780, 0.820]."
    assert text[1].startswith("Do: mixed, +2.0 Dice points [+1.3, +2.7]") and text[2].startswith("Also better: half")
    assert text[3].startswith("Do not: alone, -5.0") and "large" not in " ".join(text)
    assert text[4] == "Labelling more patients: 36 in the place of 18 give +1.0 Dice points, no more than samples give."


def test_without_a_sure_gain_nothing_is_promised() -> None:
    text = recipe(20, 18, REAL, [("mixed", score(0.02, 1)), ("alone", score(-0.01, 1))], [(9, REAL)])
    assert len(text) == 2 and "No way to use samples is surely better" in text[1] and "The highest of 2 is mixed" in text[1]
    assert len(recipe(20, 18, REAL, [], [])) == 1


def test_differences_are_read_from_the_table_once_per_arm() -> None:
    row = {"arm": "mixed", "metric": "downstream_dice", "value": 0.1, "low": 0.0, "high": 0.2, "n": 9}
    table = pd.DataFrame([row, row, row | {"arm": "far", "metric": "downstream_hd95_mm"}])
    assert differences_of(table) == [("mixed", Score(0.1, 0.0, 0.2, 9))]
