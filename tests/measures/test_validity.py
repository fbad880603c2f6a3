"""Label maps with one known fault fail the rule that names it, and no other; real hearts pass."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import discs

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.errors import DataError
from cmri_lib.measures.anatomy.validity import (DRAWN, PLACE, READ, RULES, SIZES, UNSURE, Certainty, Ranges, Span, Tolerance,
                                                 screened, validity, validity_of_masks, validity_of_samples)
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
    elif fault == "LV and wall":
        mask[mask == LABELS["LV"]] = LABELS["Myo"]
    elif fault == "RV where due":
        mask[mask == LABELS["RV"]] = 0
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
    elif fault == "in place":
        mask = np.roll(mask, (-12, -2), (0, 1))
    elif fault == "sizes":
        mask[:] = 0
        mask[18:31, :3] = LABELS["RV"]
        mask[disc(24, 24, 22)], mask[disc(24, 24, 20)] = LABELS["Myo"], LABELS["LV"]
    return mask


def maps(*masks: np.ndarray, level: str = "mid", split: str = "test") -> Slices:
    some = discs(len(masks), 1, size=SIZE, split=split)
    return Slices(some.images, np.stack(masks), some.table.assign(level=level))


@pytest.fixture(scope="module")
def ranges() -> Ranges:
    """As at mid-ventricle and base all slices show all structures; at the apex every second one has no RV."""
    whole = [maps(heart(), heart()[::-1], level=level, split="train") for level in ("basal", "mid")]
    return Ranges.of(concatenate([*whole, maps(heart(), faulty("RV where due"), level="apical", split="train")]))


@pytest.mark.parametrize("fault", [None, *RULES])
def test_each_fault_breaks_its_own_rule(fault: str | None, ranges: Ranges) -> None:
    some = maps(heart() if fault is None else faulty(fault))
    found = validity(some.masks, some.table, ranges).iloc[0]
    broken = {rule for rule in RULES if not found[rule]}
    assert fault in broken if fault else not broken
    # What has grown a second part has also grown and moved, and nothing at all lacks everything; nothing else is blamed.
    entailed = {"sizes", "in place"} | ({"LV and wall", "RV where due"} if fault == "something" else set())
    assert broken - entailed <= {fault} and found["valid"] == (not broken)


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
    assert rows[[rule for rule in RULES if rule not in ("in place", "sizes")]].all(axis=None)
    assert rows["valid"].mean() > 0.8, "only what is outermost in its level is not plausible"
    assert not validity(only.masks, only.table, Ranges.of(training))["closed wall"].any(), (
        "where walls are known, one is missed")


def test_what_is_due_is_learnt_level_by_level(ranges: Ranges) -> None:
    assert ranges.due == {"basal": {"LV", "Myo", "RV"}, "mid": {"LV", "Myo", "RV"}, "apical": {"LV", "Myo"}}
    for level, valid in (("basal", False), ("mid", False), ("apical", True), ("unknown", True)):
        some = maps(faulty("RV where due"), level=level)
        assert validity(some.masks, some.table, ranges)["valid"].item() == valid, level
    hollow = maps(faulty("LV and wall"), level="unknown")
    assert not validity(hollow.masks, hollow.table, ranges)["valid"].item(), "no level goes without an LV"


def ventricle(bare: int) -> np.ndarray:
    """A cavity of 10 by 10 pixels, with 40 about it that are wall but for so many, from the right corner downwards and on."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[18:30, 18:30] = LABELS["Myo"]
    mask[19:29, 19:29] = LABELS["LV"]
    about = [*((row, 29) for row in range(19, 29)), *((29, column) for column in range(19, 29)),
             *((row, 18) for row in range(19, 29)), *((18, column) for column in range(19, 29))]
    mask[tuple(np.array(about[:bare], int).reshape(-1, 2).T)] = 0
    return mask


@pytest.mark.parametrize(("tolerance", "level", "most"), [
    (DRAWN, "basal", 20), (DRAWN, "mid", 0), (DRAWN, "apical", 0), (DRAWN, "unknown", 20),
    (READ, "basal", 20), (READ, "mid", 10), (READ, "apical", 16), (READ, "unknown", 20)])
def test_of_forty_pixels_about_the_cavity_so_many_may_be_bare(tolerance: Tolerance, level: str, most: int) -> None:
    """Half at the base, a quarter and two fifths elsewhere in what was read, none in what was drawn."""
    assert tolerance.opening_at(level) == pytest.approx(most / 40)
    some = maps(ventricle(most), ventricle(most + 1), level=level)
    known = Ranges.of(maps(ventricle(0), ventricle(0), level=level, split="train"))
    assert list(validity(some.masks, some.table, known, tolerance)["closed wall"]) == [True, False]


def scattered(structure: str, beside: int) -> np.ndarray:
    """One part of 10 by 10 pixels of a structure, and so many pixels beside it in parts of at most 45."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:10, :10] = LABELS[structure]
    for part, top in enumerate(range(12, SIZE, 7)):
        places = np.argwhere(np.ones((5, 9)))[:max(0, min(45, beside - 45 * part))] + [top, 0]
        mask[tuple(places.T)] = LABELS[structure]
    assert (mask == LABELS[structure]).sum() == 100 + beside
    return mask


@pytest.mark.parametrize(("structure", "most"), [("LV", 42), ("Myo", 42), ("RV", 149)])
def test_of_what_was_read_three_tenths_may_lie_outside_the_largest_part_and_of_the_thin_rv_six(
        structure: str, most: int, ranges: Ranges) -> None:
    """42 pixels of 142 are less than three tenths, 43 of 143 are more; 149 of 249 and 151 of 251 about six."""
    more = 43 if most == 42 else 151
    some = maps(scattered(structure, most), scattered(structure, more), scattered(structure, 1), scattered(structure, 2))
    rule = "one myocardium" if structure == "Myo" else f"one {structure}"
    assert list(validity(some.masks, some.table, ranges, READ)[rule]) == [True, False, True, True]
    assert list(validity(some.masks, some.table, ranges, DRAWN)[rule]) == [False, False, True, False], "a pixel is no part"


def test_plausible_sizes_are_all_but_the_outermost_widened_by_a_margin() -> None:
    """1001 values from 0 to 1000: but for 0.5 % on each side they reach from 5 to 995. Of places only the largest counts."""
    sizes = pd.DataFrame({name: np.arange(1001.0) * (k + 1) for k, name in enumerate((*SIZES, PLACE))})
    sizes = pd.concat([sizes, pd.DataFrame(np.nan, range(300), sizes.columns)])  # absent structures have no size
    span = Span.of(sizes, 0.2, pixel=3.0)
    scales = np.arange(1, len(SIZES) + 1)
    np.testing.assert_allclose(span.low[list(SIZES)], 4 * scales, rtol=1e-12)
    np.testing.assert_allclose(span.high[list(SIZES)], 1194 * scales, rtol=1e-12)
    assert span.low[PLACE] == 0 and span.high[PLACE] == pytest.approx(995 * (len(SIZES) + 1))
    assert Span.of(sizes, 0.2, pixel=9000.0).high[PLACE] == 9000, "no place is known better than to a pixel"


def test_a_size_at_its_bound_is_plausible_one_beyond_is_not_and_an_absent_one_has_none() -> None:
    columns = [*SIZES, PLACE]
    span = Span(pd.Series(2.0, columns), pd.Series(5.0, columns))
    rows = pd.DataFrame([[value] * len(columns) for value in (2.0, 5.0, np.nextafter(2, 0), np.nextafter(5, 6), np.nan)],
                        columns=columns)
    assert span.holds(rows).all(axis=1).tolist() == [True, True, False, False, True]


def small() -> np.ndarray:
    """A left ventricle as small as at the tip, where the right one has ended."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[disc(24, 24, 6)], mask[disc(24, 24, 3)] = LABELS["Myo"], LABELS["LV"]
    return mask


@pytest.mark.parametrize("lone", [4, 5])
def test_where_the_rv_has_ended_five_slices_have_a_range_of_their_own(lone: int) -> None:
    """Pixels of 3 mm: the areas are 9 mm² times what is counted, and the ranges reach 15 % further."""
    known = Ranges.of(maps(*[heart()] * 5, *[small()] * lone, level="apical", split="train"))
    least, most = (9 * (mask == LABELS["LV"]).sum() for mask in (small(), heart()))
    every, without = known.every["apical"], known.without_rv["apical"]
    assert (every.low["LV_mm2"], every.high["LV_mm2"]) == pytest.approx((0.85 * least, 1.15 * most))
    assert without.high["LV_mm2"] == pytest.approx(1.15 * (least if lone == 5 else most))
    large = maps(faulty("RV where due"), small(), level="apical")
    assert list(validity(large.masks, large.table, known)["sizes"]) == [lone == 4, True]


def test_a_segmenters_crumbs_are_forgiven_and_a_half_open_wall_is_not(ranges: Ranges) -> None:
    crumb, half = heart(), heart()
    crumb[3:5, 3:5] = LABELS["Myo"]
    half[:24][half[:24] == LABELS["Myo"]] = 0
    some = maps(crumb, half)
    assert list(validity(some.masks, some.table, ranges)["valid"]) == [False, False]
    assert list(validity(some.masks, some.table, ranges, READ)["valid"]) == [True, False]


def test_samples_are_judged_at_the_level_that_suits_them(ranges: Ranges) -> None:
    some = maps(heart(), faulty("RV where due"), faulty("LV and wall"), faulty("something"), level="mid")
    measure = validity_of_samples(ranges, lambda images: some.masks)
    assert list(measure.embed(some)[:, 0]) == [1, 1, 0, 0]


def test_a_heart_of_which_the_segmenter_is_less_sure_than_of_real_ones_is_none(ranges: Ranges) -> None:
    some, training = maps(heart(), heart(), faulty("something")), maps(*[heart()] * 51, split="train")
    certainty = Certainty.learnt(lambda images: np.linspace(0, 1, len(images)), lambda images: training.masks, training, ranges)
    assert certainty.least == pytest.approx(UNSURE)
    doubtful = Certainty(lambda images: np.array([0.9, 0.5, 0.9]), 0.8)
    measure = validity_of_samples(ranges, lambda images: some.masks, doubtful)
    assert list(measure.embed(some)[:, 0]) == [1, 0, 0]
