"""What benchmarks compute: operations by a closed form, tables that keep what was measured before, sums of logs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import discs
from torch import nn

from cmri_lib.training.checkpoint import write_tensors

ROOT = Path(__file__).parents[1]


def benchmark(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scaling, growth, trainings = benchmark("scaling"), benchmark("growth"), benchmark("trainings")


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 2, 1)

    def loss(self, batch: dict, group: str) -> torch.Tensor:
        return self.second(self.first(batch["image"])).sum()


def test_operations_of_a_step_are_those_of_its_convolutions() -> None:
    forwards = [2 * 9 * 1 * 3 * 16**2, 2 * 1 * 3 * 2 * 16**2]
    # Backwards once for the weights, and once for the inputs of all layers but the first.
    assert scaling.step_flops(TwoLayers(), 16) == 2 * forwards[0] + 3 * forwards[1]


def test_the_published_costs_are_those_of_todays_networks() -> None:
    rows, page = pd.read_csv(scaling.FILE), scaling.PAGE.read_text(encoding="utf-8")
    assert scaling.published(page, scaling.table(rows)) == page
    first = rows.iloc[0]
    again = scaling.row(first["profile"], int(first["cohort"]), first["assumed_tflop_per_s"])
    for name in ("parameters", "gflop_per_image", "steps", "batch", "tflop", "cohort_tflop"):
        assert again[name] == pytest.approx(first[name], rel=1e-4), f"{name}: run python benchmarks/scaling.py"


def test_a_grown_set_repeats_nothing() -> None:
    made = growth.grown(discs(2, 4), 50, "train", 1)
    assert len(np.unique(made.images.reshape(50, -1), axis=0)) == 50 and len(set(made.patients)) == 3
    assert len(set(growth.grown(discs(2, 4), 50, "sample", 1, own_patients=True).patients)) == 50


def test_a_run_replaces_its_own_rows_and_may_leave_times_blank() -> None:
    found = pd.DataFrame({"part": ["audit"] * 3, "images": 1000, "seconds": [1.0, 2.0, 9.0], "peak_gib": [1.0, 3.0, 2.0],
                          "idle_gib": 0.5})
    new = growth.summary(found, memory=False)
    assert new.loc[0, ["seconds", "images_per_s", "peak_gib", "rounds"]].tolist() == [2.0, 500.0, 3.0, 3]
    assert growth.summary(found, memory=True)[["seconds", "images_per_s"]].isna().all(axis=None)
    before = new.assign(peak_gib=7.0)
    before = pd.concat([before, before.assign(part="reader"), before.assign(images=10)])
    table = growth.joined(before, new)
    assert table[["part", "images", "peak_gib"]].values.tolist() == [["reader", 1000, 7.0], ["audit", 10, 7.0],
                                                                     ["audit", 1000, 3.0]]


def test_what_was_not_timed_is_no_point_of_the_figure() -> None:
    table = pd.DataFrame({"part": ["audit", "audit", "reader"], "images": [1000, 10_000, 1000], "seconds": [1.0, 9.0, np.nan],
                          "peak_gib": [1.0, 3.0, 0.5]})
    seconds, memory = growth.draw(table).axes
    assert [line.get_xydata().tolist() for line in seconds.lines] == [[[1000, 1], [10_000, 9]], []]
    assert [line.get_xydata().tolist() for line in memory.lines[:2]] == [[[1000, 1], [10_000, 3]], [[1000, 0.5]]]
    assert memory.get_ylim()[1] >= growth.ALLOWED, "the line of what is allowed is in sight"
    plt.close("all")


def test_hours_of_trainings_are_images_by_the_median_pace_and_breaks_do_not_count(tmp_path: Path) -> None:
    """Three logged paces of 10, 20 and 20 images a second, the first after a break."""
    for name, device in (("flow/a", {}), ("flow/b", {"device": "GPU"}), ("gan/c", {})):
        write_tensors(tmp_path / name / "weights.safetensors", {}, device)
        pd.DataFrame({"step": [10, 20, 30], "images": [24000, 48000, 72000], "seconds": [2400, 3600, 4800],
                      "images_per_s": [10.0, 20.0, 20.0]}).to_csv(tmp_path / name / "log.csv", index=False)
    write_tensors(tmp_path / "instruments" / "weights.safetensors", {}, {})  # has no log
    found = trainings.table(tmp_path).set_index(["stage", "training"])
    assert len(found) == 5 and found.loc["flow", "a"]["images_per_s"] == 20 and found.loc["flow", "b"]["device"] == "GPU"
    assert found.loc["gan", "c"]["hours"] == 1 and found.loc["gan", "c"]["logged_hours"] == pytest.approx(4 / 3)
    both = found.loc["all", "2 trainings"]
    assert both["device"] == "cpu" and both["hours"] == 2 and both["images"] == 144000
