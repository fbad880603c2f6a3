"""Stacks: resampling is exact where it can be, refuses what has no place, and controls are what they claim to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import discs

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.cohort.stacks import as_volumes, mixed, resampled, stack_rows
from cmri_lib.errors import DataError, ParameterError


def stacks_of(patients: int = 4, per_patient: int = 5, seed: int = 0, split: str = "test") -> Slices:
    """Stacks of one phase, stored from base to apex as scanners do."""
    some = discs(patients, per_patient, seed=seed, split=split).with_columns(phase="ED")
    return some.take(np.arange(len(some))[::-1])


def test_a_linear_course_is_resampled_exactly() -> None:
    some = stacks_of(2, 5)
    heights = some.table["height"].to_numpy()
    ramp = replace(some, images=np.broadcast_to(heights[:, None, None, None], some.images.shape).astype(np.float32) * 1.0)
    made = resampled(ramp, 8)
    np.testing.assert_allclose(made.images[:, 0, 3, 3], np.tile(np.linspace(0, 1, 8), 2), atol=1e-6)
    np.testing.assert_allclose(made.table["height"], np.tile(np.linspace(0, 1, 8), 2))
    assert list(made.table["index"]) == [*range(8)] * 2
    assert list(made.table["level"][:8]) == ["apical"] * 3 + ["mid"] * 2 + ["basal"] * 3
    assert set(made.table["slice_mm"]) == {10.0 * 4 / 7}  # the axis is as long as before


def test_a_slice_without_a_label_leaves_the_axis_as_long_as_it_is() -> None:
    whole = stacks_of(2, 4)
    gap = whole.take(whole.table["index"].to_numpy() != 2)  # at 0, 1/3 and 1 of 30 mm
    assert list(gap.table["height"][:3]) == pytest.approx([1, 1 / 3, 0])
    for planes in (4, 7):
        made = resampled(gap, planes)
        assert made.table["slice_mm"].tolist() == pytest.approx([30 / (planes - 1)] * 2 * planes)
        assert made.table["slice_mm"].tolist() == pytest.approx(resampled(whole, planes).table["slice_mm"].tolist())


def test_as_many_planes_as_slices_changes_nothing() -> None:
    some = stacks_of(3, 5)
    made = resampled(some, 5)
    order = np.concatenate(list(stack_rows(some.table)))
    np.testing.assert_allclose(made.images, some.images[order], atol=1e-6)
    np.testing.assert_array_equal(made.masks, some.masks[order])
    np.testing.assert_array_equal(made.patients, some.patients[order])
    np.testing.assert_allclose(resampled(made, 5).images, made.images, atol=1e-6)


def test_labels_between_slices_are_those_of_the_larger_share() -> None:
    pair = stacks_of(1, 2).take([1, 0])  # apex first
    masks = np.zeros_like(pair.masks)
    masks[0, 8:24, 8:24], masks[1, 8:24, 8:24] = 1, 2
    made = resampled(replace(pair, masks=masks), 5)
    assert [int(m[10, 10]) for m in made.masks] == [1, 1, 1, 2, 2]  # at the middle both have half, and the lower label stays
    assert set(np.unique(made.masks)) <= {0, 1, 2} and not made.masks[:, 0, 0].any()


def test_phases_repeats_and_patients_stay_apart() -> None:
    ed = stacks_of(2, 4)
    both = concatenate([ed, ed.with_columns(phase="ES"), ed])  # every ED stack twice
    rows = list(stack_rows(both.table))
    assert len(rows) == 6 and all(len(r) == 4 for r in rows)
    assert sorted(np.concatenate(rows)) == list(range(len(both)))
    for r in rows:
        assert both.table.iloc[r][["patient", "phase"]].drop_duplicates().shape[0] == 1
        assert (np.diff(both.table["height"].to_numpy()[r]) > 0).all()


def test_what_is_no_stack_is_refused() -> None:
    some = stacks_of(3, 4)
    with pytest.raises(ParameterError, match="planes"):
        resampled(some, 1)
    with pytest.raises(DataError, match="height"):
        resampled(some.with_columns(height=np.nan), 4)
    with pytest.raises(DataError, match="no stack"):
        resampled(some.where(index=0), 4)
    lonely = concatenate([some.where(patient="test0-0").where(index=0), some.where(patient="test0-1")])
    assert set(resampled(lonely, 4).patients) == {"test0-1"}
    made = resampled(some, 4)
    for wrong in (made.take(np.arange(11)), made.take(np.arange(12)[::-1]), made.take(np.arange(2, 10))):
        with pytest.raises(DataError, match="not stacks"):
            as_volumes(wrong, 4)
    images, masks = as_volumes(made, 4)
    assert images.shape == masks.shape == (3, 4, 32, 32)


def test_mixed_planes_are_real_and_neighbours_are_strangers() -> None:
    made = resampled(stacks_of(5, 6), 6)
    control = mixed(made, 6, 3)
    images, _ = as_volumes(control, 6)
    real, _ = as_volumes(made, 6)
    lenders = np.array([[next(s for s in range(5) if np.array_equal(images[i, k], real[s, k])) for k in range(6)]
                        for i in range(5)])
    assert (lenders[:, 1:] != lenders[:, :-1]).all() and (lenders[:, 0] == np.arange(5)).all()
    assert (control.table["source"] == "real").all()  # so that figures of real patients are kept back
    np.testing.assert_array_equal(mixed(made, 6, 3).images, control.images)
    with pytest.raises(DataError, match="one patient"):
        mixed(made.where(patient="test0-1"), 6, 0)
