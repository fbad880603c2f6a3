"""Label maps with one known fault fail the rule that names it, and no other; real hearts pass."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import discs

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError
from cmri_lib.measures.anatomy.validity import RULES, Ranges, screened, validity, validity_of_masks
from cmri_lib.measures.statistics.comparison import compare

SIZE = 48
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]


def disc(row: float, column: float, radius: float) -> np.ndarray:
    return (ROWS - row) ** 2 + (COLUMNS - column) ** 2 <= radius**2


def heart() -> np.ndarray:
    """A round LV in its wall, a right ventricle that leans on it."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[disc(24, 14, 8)] = LABELS["RV"]
    mask[disc(24, 28, 11)] = LABELS["Myo"]
    mask[disc(24, 28, 7)] = LABELS["LV"]
    return mask


def faulty(fault: str) -> np.ndarray:
    mask = heart()
    if fault == "something":
        mask[:] = 0
    elif fault == "one LV":
        mask[disc(8, 8, 3)] = LABELS["LV"]
        mask[disc(8, 8, 5) & (mask == 0)] = LABELS["Myo"]  # a second, closed ring would be a second myocardium …
        mask[8:20, 10:20][mask[8:20, 10:20] == 0] = LABELS["Myo"]  # … so it is joined to the first
    elif fault == "one myocardium":
        mask[disc(42, 42, 2)] = LABELS["Myo"]
    elif fault == "one RV":
        mask[disc(42, 6, 3)] = LABELS["RV"]
    elif fault == "closed wall":
        mask[22:27, 34:][mask[22:27, 34:] == LABELS["Myo"]] = 0
    elif fault == "RV at the wall":
        mask[mask == LABELS["RV"]] = 0
        mask[disc(24, 6, 4)] = LABELS["RV"]
    elif fault == "sizes":
        mask[:] = 0
        mask[disc(24, 24, 22)], mask[disc(24, 24, 20)] = LABELS["Myo"], LABELS["LV"]
    return mask


def maps(*masks: np.ndarray, level: str = "mid", split: str = "test") -> Slices:
    some = discs(len(masks), 1, size=SIZE, split=split)
    return Slices(some.images, np.stack(masks), some.table.assign(level=level))


@pytest.fixture(scope="module")
def ranges() -> Ranges:
    return Ranges.of(maps(heart(), heart()[::-1], split="train"))


@pytest.mark.parametrize("fault", [None, *RULES])
def test_each_fault_breaks_its_own_rule(fault: str | None, ranges: Ranges) -> None:
    some = maps(heart() if fault is None else faulty(fault))
    found = validity(some.masks, some.table, ranges).iloc[0]
    broken = {rule for rule in RULES if not found[rule]}
    assert fault in broken if fault else not broken
    # What has grown a second part has also grown; nothing else is blamed for another's fault.
    assert broken - {"sizes"} <= {fault} and found["valid"] == (not broken)


def test_the_wall_may_open_at_the_base_only(ranges: Ranges) -> None:
    for level, allowed in (("basal", True), ("mid", False), ("apical", False)):
        some = maps(faulty("closed wall"), level=level)
        assert validity(some.masks, some.table, ranges)["closed wall"].item() == allowed


def test_screen_and_measure_agree(ranges: Ranges) -> None:
    some = maps(heart(), faulty("one RV"), heart()[:, ::-1], faulty("closed wall"))
    assert list(screened(some, ranges).patients) == list(some.patients[[0, 2]])
    row, = compare(maps(heart(), heart(), heart()), some, validity_of_masks(ranges), resamples=50, repeats=2)
    assert row["metric"] == "mask_valid" and row["value"] == pytest.approx(0.5) and row["floor"] == 1
    with pytest.raises(DataError, match="screen"):
        screened(maps(faulty("one RV")), ranges)
    with pytest.raises(DataError, match="training"):
        Ranges.of(maps(heart(), heart()))


def test_no_wall_is_asked_for_where_nobody_has_labelled_it() -> None:
    training = discs(4, 6)
    only = Slices(training.images, np.where(training.masks == LABELS["LV"], LABELS["LV"], 0).astype(np.uint8), training.table)
    rows = validity(only.masks, only.table, Ranges.of(only))
    assert rows["valid"].all()
    assert not validity(only.masks, only.table, Ranges.of(training))["closed wall"].any(), "where walls are known, one is missed"
