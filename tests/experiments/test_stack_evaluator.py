"""The evaluator of stacks: both sides resampled alike, scores per stack with the real ones as floor, controls found."""

from __future__ import annotations

import pytest
from conftest import discs
from judges import SEGMENT

from cmri_lib.cohort.slices import concatenate
from cmri_lib.cohort.stacks import as_volumes, mixed
from cmri_lib.config.study import open_study
from cmri_lib.errors import DataError
from cmri_lib.experiments import volumes
from cmri_lib.experiments.volumes import MASK_METRICS, READ_METRICS, StackEvaluator, stack_costs


@pytest.fixture(scope="module")
def evaluator() -> StackEvaluator:
    parts = [discs(5, 6, seed=seed, split=split) for seed, split in enumerate(("train", "validation", "test", "holdout"))]
    made = StackEvaluator(open_study("smoke", "phantom"), concatenate(parts).with_columns(phase="ED"), 24)
    made.__dict__["segmenter"] = SEGMENT
    return made


def test_every_set_is_of_whole_resampled_stacks(evaluator: StackEvaluator) -> None:
    for stacks in (evaluator.test, evaluator.training, evaluator.others, evaluator.conditions):
        as_volumes(stacks, evaluator.planes)
    assert len(evaluator.whole) == 24 and len(evaluator.conditions) == 4 * evaluator.planes
    assert set(evaluator.conditions.patients) == set(evaluator.whole.patients)
    assert set(evaluator.others.table["split"]) == {"validation", "holdout"}


def test_rows_have_the_real_stacks_as_floor(evaluator: StackEvaluator) -> None:
    real, others = evaluator.stack_values(evaluator.conditions), evaluator.stack_values(evaluator.others)
    rows = {row["metric"]: row for row in evaluator.stack_rows("a system", real, others)}
    assert tuple(rows) == (*READ_METRICS, *MASK_METRICS)
    for name, row in rows.items():
        assert row["floor"] == pytest.approx(others[name].mean()) and row["n"] == 4 and row["system"] == "a system"
        assert row["low"] <= row["value"] <= row["high"]
    # Discs of one radius: the rules of a cone hold, and areas hardly change; where there is less of it than in
    # real stacks, more is better.
    assert rows["mask_stack_tapering"]["value"] == 1 and rows["mask_stack_tapering"]["better"] == "higher"
    assert all(row["better"] == ("higher" if row["value"] < row["floor"] else "lower") for name, row in rows.items()
               if name.startswith("stack_roughness"))
    with pytest.raises(DataError, match="not measured"):
        evaluator.stack_score(real, "stack_colour")
    maskless = evaluator.conditions
    maskless = type(maskless)(maskless.images, 0 * maskless.masks, maskless.table)
    assert not set(MASK_METRICS) & set(evaluator.stack_values(maskless))


def test_differences_find_planes_of_strangers(evaluator: StackEvaluator) -> None:
    real = evaluator.stack_values(evaluator.others)
    strangers = evaluator.stack_values(mixed(evaluator.others, evaluator.planes, 0))
    gap = evaluator.stack_difference(strangers, real, "mask_stack_roughness_LV")
    assert gap.low > 0 and gap.value == pytest.approx(
        strangers["mask_stack_roughness_LV"].mean() - real["mask_stack_roughness_LV"].mean())
    same = evaluator.stack_difference(real, real, "mask_stack_roughness_LV")
    assert same.value == same.low == same.high == 0  # a patient of both sets is drawn for both


def test_costs_of_a_stack_are_those_of_its_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six seconds for a stack of four planes are 1.5 a slice, and a hundred stacks seen are four hundred slices."""
    asked, drawn = [], {"metric": "seconds_per_image", "value": 6.0, "low": 3.0, "high": 9.0, "n": 5, "system": "C7"}
    others = [drawn | {"metric": metric, "value": 100.0, "low": 90.0, "high": 110.0} for metric in
              ("images_seen", "images_before", "parameters", "nfe", "training_seconds", "peak_memory_gib")]
    monkeypatch.setattr(volumes, "cost_rows", lambda *given, **more: asked.append((given, more)) or [drawn, *others])
    rows = {row["metric"]: row for row in stack_costs("study", "run", "generator", "conditions", 3, 4)}
    assert asked == [(("study", "run", "generator", "conditions"), {"images": 3})], "so many stacks are drawn at once"
    assert rows["seconds_per_image"] == drawn | {"value": 1.5, "low": 0.75, "high": 2.25}
    for row in others[:2]:
        assert rows[row["metric"]] == row | {"value": 400.0, "low": 360.0, "high": 440.0}
    assert [rows[row["metric"]] for row in others[2:]] == others[2:], "a training and a network are not by the slice"
