"""The measure of CONTRIBUTING.md: it counts what it says, is listed as the guide says, and comes with intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import discs
from contributing import example, run_example

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import ParameterError
from cmri_lib.measures import panel
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.statistics.comparison import Measure, Metric, compare
from cmri_lib.reporting import metrics


@pytest.fixture
def measure() -> Measure:
    return run_example("def grey_levels")["grey_levels"]()


def shifted(slices: Slices, factor: float, by: float = 0.0, source: str = "real") -> Slices:
    return Slices(np.float32(factor) * slices.images + np.float32(by), slices.masks, slices.table.assign(source=source))


def test_samples_that_are_brighter_are_as_far_away_as_they_are_brighter(measure: Measure) -> None:
    real = shifted(discs(8, 4, seed=1, split="test"), 0.5)
    row, = compare(real, shifted(real, 1.0, 0.1, "mine"), measure, resamples=100)
    assert row["metric"] == "grey_levels" and row["axis"] == "fidelity" and row["better"] == "lower"
    assert row["value"] == pytest.approx(0.1, abs=1e-6)
    assert row["low"] <= row["value"] <= row["high"] and row["floor"] < 0.1
    same, = compare(real, shifted(real, 1.0, source="mine"), measure, resamples=100)
    assert same["value"] == pytest.approx(0, abs=1e-6)


def test_a_slice_that_is_drawn_twice_counts_twice(measure: Measure) -> None:
    real, mine = discs(4, 2, seed=1, split="test"), discs(4, 2, seed=2)
    (x, y), twice = measure.of(real=real, mine=mine), np.array([2, 1, 1, 1, 1, 1, 1, 1])
    statistic, = measure.statistics(x, y)
    again, = measure.statistics(x.take(np.r_[0, 0:8]), y)
    assert statistic(twice, np.ones(8, int)) == pytest.approx(again(np.ones(9, int), np.ones(8, int)))


@pytest.mark.parametrize(("fault", "changes"), [
    ("embed of grey_levels.*list", {"embed": lambda slices: [[0.0], [0.0, 1.0]]}),
    ("embed of grey_levels.*5, 3.* 32 slices of real", {"embed": lambda slices: np.zeros((5, 3))}),
    ("embed of grey_levels.*list", {"embed": lambda slices: len(slices) * [0.0]}),
    ("statistics of grey_levels.*list of 2, 2 of them functions, for 1", {"statistics": lambda *sets: 2 * [lambda u, v: 0.0]}),
    ("statistics of grey_levels.*list of 1, 0 of them functions", {"statistics": lambda *sets: [0.5]}),
    ("statistics of grey_levels.*function of 0", {"statistics": lambda *sets: lambda u, v: 0.0}),
    ("statistics of grey_levels.*NoneType of 0", {"statistics": lambda *sets: None})])
def test_a_measure_that_does_not_do_as_the_guide_says_is_named(measure: Measure, fault: str, changes: dict) -> None:
    real = discs(8, 4, seed=1, split="test")
    with pytest.raises(ParameterError, match=f"(?s){fault}.*Remedy: return"):
        compare(real, discs(8, 4, seed=2), replace(measure, **changes), resamples=2, repeats=2)


def test_a_direction_that_there_is_not_is_refused() -> None:
    with pytest.raises(ParameterError, match="(?s)better of mine.*'less'.*lower, higher, zero"):
        Metric("mine", "less")


def test_its_title_is_entered_as_the_guide_says(measure: Measure, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = example('"grey_levels": ')
    (name, description), = eval("{" + entry + "}", dict(vars(metrics))).items()
    assert not metrics.known(name) and name == measure.metrics[0].name
    monkeypatch.setitem(metrics.SINGLE, name, description)
    assert metrics.label(name) == "Difference of grey levels" and metrics.number(name, 0.12345) == "0.123"


def test_anybody_s_arrays_are_compared_as_the_guide_says() -> None:
    real, mine = discs(6, 4, seed=1, split="test"), discs(6, 4, seed=2)
    grey = [np.round(127.5 * (slices.images[:, 0] + 1)).astype(np.uint8) for slices in (real, mine)]
    rows = run_example("Slices.from_arrays", test_images=grey[0], samples=grey[1], names=list(real.patients))["rows"]
    wanted = {metric.name for one in panel.measures([ClassicalFeatures()]) for metric in one.metrics}
    assert {row["metric"] for row in rows} == wanted and all(np.isfinite(row["value"]) for row in rows)
