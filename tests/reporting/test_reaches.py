"""Whether a score reaches what real images score, at each of its ends."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cmri_lib.reporting import review

NAN = float("nan")


def score(better: str, value: float, low: float, high: float, *, floor: float = NAN, ceiling: float = NAN) -> SimpleNamespace:
    return SimpleNamespace(value=value, low=low, high=high, floor=floor, ceiling=ceiling, better=better)


@pytest.mark.parametrize(("row", "metric", "reached"), [
    # A distance: real images score the floor, and the lower end of the interval counts. The ceiling says nothing.
    (score("lower", 0.5, 0.3, 0.7, floor=0.3, ceiling=0.0), "kid_study", True),
    (score("lower", 0.5, 0.3, 0.7, floor=0.29, ceiling=0.9), "kid_study", False),
    (score("lower", 0.2, 0.3, 0.7, floor=0.25), "kid_study", True),  # centring can push the interval off the value
    (score("lower", 0.2, NAN, NAN, floor=0.25), "kid_study", True),  # too few patients for an interval
    (score("lower", 0.3, NAN, NAN, floor=0.25), "kid_study", False),
    # Overlap with the mask that was followed: real images score the ceiling, and the upper end counts.
    (score("higher", 0.5, 0.3, 0.7, floor=0.1, ceiling=0.7), "dice_mean", True),
    (score("higher", 0.5, 0.3, 0.7, floor=0.1, ceiling=0.71), "dice_mean", False),
    (score("higher", 0.72, 0.3, 0.7, floor=0.1, ceiling=0.71), "dice_mean", True),
    (score("higher", 0.5, NAN, NAN, floor=0.1, ceiling=0.5), "dice_mean", True),
    # Distances of outlines to that mask fall towards the ceiling.
    (score("lower", 5.0, 4.0, 6.0, floor=9.0, ceiling=3.9), "hd95_LV_mm", False),
    (score("lower", 5.0, 4.0, 6.0, floor=9.0, ceiling=4.0), "hd95_LV_mm", True),
    # Coverage rises towards the floor.
    (score("higher", 0.5, 0.3, 0.7, floor=0.71, ceiling=0.2), "coverage_study", False),
    # Of valid hearts, half of the real ones must be valid for anything to be said.
    (score("higher", 0.5, 0.3, 0.7, floor=0.5, ceiling=1.0), "heart_valid", True),
    (score("higher", 0.5, 0.3, 0.7, floor=0.8, ceiling=1.0), "heart_valid", False),
    (score("higher", 0.5, 0.3, 0.7, floor=0.49, ceiling=1.0), "heart_valid", None),
    # What real images score is not known.
    (score("lower", 5.0, 4.0, 6.0, ceiling=9.0), "kid_study", None),
    (score("higher", 0.5, 0.3, 0.7, floor=0.1), "dice_mean", None),
    (score("lower", 5.0, 4.0, 6.0), "nfe", None)])
def test_a_score_reaches_real_images_where_its_nearer_end_does(row: SimpleNamespace, metric: str, reached: bool | None) -> None:
    assert review.reaches(row, metric) is reached
