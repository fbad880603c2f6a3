"""What measures say where patients are few, slices are missing, or there is nothing to measure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import discs
from torch import nn

from cmri_lib.errors import DataError
from cmri_lib.measures.anatomy.adherence import agreement
from cmri_lib.measures.conditioning.fixed_mask import fixed_mask_diversity, repeated
from cmri_lib.measures.cost import cost, peak_memory
from cmri_lib.measures.fidelity.corruptions import copied, one_level
from cmri_lib.measures.utility.volumetric import FOREGROUND, volume_scores


def test_a_missing_slice_keeps_its_place_between_the_others() -> None:
    """A square in slices 0 and 4 of a scan, 10 mm apart; in the second map it is in slice 0 alone. The nearest voxel to the
    square of slice 4 is four slices away."""
    slices = discs(1, 2).with_columns(index=[0, 4], slice_mm=10.0, spacing=1.0, scan="s", phase="ED")
    wanted = np.zeros((2, slices.size, slices.size), np.uint8)
    wanted[:, 4:8, 4:8] = 1
    found = wanted * np.array([1, 0], np.uint8)[:, None, None]
    row = agreement(found, wanted, slices.table).iloc[0]
    assert row["hd95_LV"] == pytest.approx(40.0) and row["dice_LV"] == pytest.approx(2 / 3)
    truth = replace(slices, masks=wanted)
    volumes = volume_scores(found, truth).set_index("structure")
    assert volumes.loc["LV", "hd95_mm"] == row["hd95_LV"] and volumes.loc[FOREGROUND, "dice"] == row["dice_LV"]


def test_one_mask_alone_has_no_floor_of_mixed_masks() -> None:
    masks = discs(3, 1, split="test")
    noise = np.random.default_rng(0)

    def floors(conditions: int) -> set[bool]:
        some = repeated(masks.take(range(conditions)), 3)
        some = replace(some, images=np.clip(some.images + noise.normal(0, 0.1, some.images.shape), -1, 1).astype(np.float32))
        return {bool(np.isfinite(row["floor"])) for row in fixed_mask_diversity(some, 3)}

    assert floors(3) == {True} and floors(2) == floors(1) == {False}, "of two masks two of three draws would share one"


@pytest.mark.parametrize("corruption", [one_level, copied(discs(1, 1).take([]))])
def test_nothing_to_put_in_the_place_of_slices_is_said(corruption: object) -> None:
    with pytest.raises(DataError, match="no slices to put") as caught:
        corruption(discs(4, 2).with_columns(level="apical"), 1.0, np.random.default_rng(0))
    assert "Remedy" in str(caught.value)


def test_nothing_to_replace_needs_nothing_to_put_there() -> None:
    some = discs(4, 2)
    assert np.array_equal(copied(some.take([]))(some, 0.0, np.random.default_rng(0)).images, some.images)


def test_memory_is_that_of_the_device_where_the_network_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine has a GPU that this network does not use: its allocator has nothing to say."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda *_: pytest.fail("the GPU was asked"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda *_: pytest.fail("the GPU was asked"))
    rows = cost(lambda n: None, nn.Linear(2, 2), images=1, evaluations=1, images_seen=1, images_before=0, training_seconds=None,
                repeats=1)
    found = next(row["value"] for row in rows if row["metric"] == "peak_memory_gib")
    assert found == pytest.approx(peak_memory(torch.device("cpu")), rel=0.05) and found > 0.01
