"""Verdicts: each side of the bound, the undecided middle, and the tables they are read from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cmri_lib.errors import DataError
from cmri_lib.measures.statistics.bootstrap import Score, score_difference
from cmri_lib.reporting.claims import decide, overfitting, score_of, slower, time_to_quality


@pytest.mark.parametrize(("low", "high", "above", "below"), [
    (0.1, 0.3, "supported", "not supported"), (-0.3, -0.1, "not supported", "supported"),
    (-0.1, 0.3, "undecided", "undecided")])
def test_a_verdict_needs_the_whole_interval(low: float, high: float, above: str, below: str) -> None:
    score = Score((low + high) / 2, low, high, n=9)
    assert decide("F1", "t", score, "KID", claimed="above")["verdict"] == above
    assert decide("F1", "t", score, "KID", claimed="below")["verdict"] == below
    assert decide("F1", "t", score, "KID", claimed="above", bound=1.0)["verdict"] == "not supported"


def test_difference_of_scores_is_exact_for_independent_normal_ones() -> None:
    # Standard errors 3 and 4 give 5: 1.96 · 5 on each side.
    first, second = (Score(v, v - 1.96 * s, v + 1.96 * s, n=10) for v, s in ((2.0, 3.0), (1.0, 4.0)))
    found = score_difference(first, second)
    assert np.allclose([found.value, found.low, found.high], [1.0, 1 - 9.8, 1 + 9.8])
    lopsided = score_difference(Score(0, -3, 0, n=5), Score(0, 0, 4, n=5))
    assert np.allclose([lopsided.low, lopsided.high], [-5, 0])


def table(rows: list[tuple]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["system", "curve", "x", "metric", "value"])
    return frame.assign(low=frame["value"] - 0.05, high=frame["value"] + 0.05, n=20, seconds=frame["x"] / 100)


def test_overfitting_compares_few_with_all_and_with_rivals() -> None:
    numbers = table([(s, "patients", x, "nearest_share_study", v) for s, x, v in
                     (("A", 4, 0.9), ("A", 70, 0.5), ("B", 4, 0.6), ("B", 70, 0.5), ("C", 4, 0.88), ("C", 70, 0.5))])
    verdicts = [r["verdict"] for r in overfitting(numbers, "A", {"B": "B", "C": "C"})]
    assert verdicts == ["supported", "supported", "undecided"]
    with pytest.raises(DataError, match="0 rows"):
        score_of(numbers, "kid", system="A")


def test_slower_is_a_ratio_with_its_range() -> None:
    numbers = pd.DataFrame({"system": ["D", "G"], "metric": "seconds_per_image", "value": [2.0, 0.1], "low": [1.8, 0.09],
                            "high": [2.2, 0.12], "n": 3})
    row = slower(numbers, "D", {"G": 19.0})[0]
    assert np.allclose([row["effect"], row["low"], row["high"]], [20, 15, 2.2 / 0.09]) and row["verdict"] == "supported"


def test_time_to_quality_takes_the_first_good_point() -> None:
    numbers = table([("A", "images", x, "kid_study", v) for x, v in ((100, 3.0), (200, 0.9), (300, 0.5))]
                    + [("B", "images", x, "kid_study", v) for x, v in ((100, 3.0), (200, 2.0))])
    found = time_to_quality(numbers, 1.0).set_index("system")
    assert found.loc["A", "images"] == 200 and found.loc["A", "seconds"] == 2.0 and np.isnan(found.loc["B", "images"])
    assert found.loc["B", "at the end"] == 2.0
