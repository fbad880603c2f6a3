"""Learning curves: which points there are, what each is a point of, and that memory is of the patients it was trained on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from judges import SEGMENT, four_splits

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import open_study
from cmri_lib.experiments import learning_curves
from cmri_lib.experiments.learning_curves import LearningCurves, runs_over_patients
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.reporting.claims import MOVING
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE
from cmri_lib.systems.register import SYSTEMS
from cmri_lib.systems.system import Run


@pytest.fixture(scope="module")
def cohort() -> Slices:
    return four_splits()


def test_curves_leave_out_what_few_patients_do_not_allow(cohort: Slices) -> None:
    study, system = open_study("smoke", "phantom"), SYSTEMS["U1 VAE"]
    assert [run.patients and len(run.patients) for run in runs_over_patients(study, cohort, system)] == [4, None]
    few = cohort.take(~np.isin(cohort.patients, np.unique(cohort.where(split="train").patients)[4:]))
    assert [run.patients for run in runs_over_patients(study, few, system)] == [None]
    two = np.unique(cohort.where(split="holdout").patients)[2:]
    assert LearningCurves(study, cohort).audits
    assert not LearningCurves(study, cohort.take(~np.isin(cohort.patients, two))).audits


def test_without_validation_or_audit_a_curve_has_no_gap_to_strangers(cohort: Slices) -> None:
    study, run = open_study("smoke", "phantom"), Run(SYSTEMS["U1 VAE"])
    two = np.unique(cohort.where(split="holdout").patients)[2:]
    for some, rows in ((cohort, 1), (cohort.take(~cohort.table["split"].eq("validation").to_numpy()), 0),
                       (cohort.take(~np.isin(cohort.patients, two)), 0)):
        curves = LearningCurves(study, some)
        curves.evaluator.__dict__["spaces"] = [ClassicalFeatures()]
        found = curves._gap(run, curves.evaluator.conditions.with_columns(source="x"))
        assert [row["metric"] for row in found] == ["nearest_gap_study"] * rows


def placed(curves: LearningCurves, split: str) -> Slices:
    """Near copies of a split's slices in the place of samples."""
    return copies_of(curves, curves.slices.where(split=split))


def copies_of(curves: LearningCurves, some: Slices) -> Slices:
    conditions = curves.evaluator.conditions
    some = some.take(np.arange(len(conditions)) % len(some))
    return Slices(0.999 * some.images, some.masks, conditions.table.assign(source="x"))


def memory(rows: list[dict], **where: object) -> list[float]:
    """The shares of samples nearer to training, in the order of the curve."""
    return [row["value"] for row in rows if row["metric"] == "nearest_share_study"
            and all(row[key] == value for key, value in where.items())]


@pytest.fixture
def curves(cohort: Slices) -> LearningCurves:
    """Curves that measure nothing but the audit, in the training-free space."""
    made, space = LearningCurves(open_study("smoke", "phantom"), cohort), ClassicalFeatures()
    space.name = "study"
    made.evaluator.__dict__.update(spaces=[space], measures=[], segmenter=SEGMENT, second_segmenter=SEGMENT)
    return made


def test_memory_is_read_off_each_snapshot_at_the_images_and_seconds_it_took(curves: LearningCurves, monkeypatch) -> None:
    run, loaded = Run(SYSTEMS["U7 LDM-KL"]), []
    settings = run.settings(curves.study.params, curves.study.seed)
    early, steps = settings.snapshot_steps(), settings.steps
    log = pd.DataFrame({"step": np.arange(1, steps + 1), "seconds": 10.0 * np.arange(1, steps + 1)})
    for name, value in (("train_or_load", None), ("training_log", log), ("first_stage_seconds", 5.0)):
        monkeypatch.setattr(learning_curves, name, lambda *given, value=value: value)
    monkeypatch.setattr(learning_curves, "load_weights", lambda generator, file: loaded.append(file.name))
    curves.evaluator.bank = lambda run, generator: placed(curves, "train" if loaded[-1].startswith("weights") else "holdout")
    rows = curves.over_compute(run)
    assert loaded == [*(f"snapshot-{step:06d}.safetensors" for step in early), "weights.safetensors"] and early
    assert memory(rows) == [0.0] * len(early) + [1.0], "copies of hold-out slices, at the end of training slices"
    points = {(row["curve"], row["x"], row["seconds"], row["system"]) for row in rows}
    assert points == {("images", step * settings.batch, 10.0 * step + 5, "U7 LDM-KL") for step in (*early, steps)}


def test_the_last_doubling_is_the_end_minus_half_of_the_way(curves: LearningCurves, monkeypatch) -> None:
    """Distances: 0.4 at half of the training, 0.1 at its end."""
    run, loaded = Run(SYSTEMS["U1 VAE"]), []
    settings, distance = run.settings(curves.study.params, curves.study.seed), {"snapshot": 0.4, "weights": 0.1}
    monkeypatch.setattr(learning_curves, "train_or_load", lambda *given: None)
    monkeypatch.setattr(learning_curves, "load_weights", lambda generator, file: loaded.append(file.name))
    curves.evaluator = SimpleNamespace(
        bank=lambda run, generator: distance[loaded[-1][:8].rstrip("-.")],
        rows=lambda run, value: [{"metric": metric, "value": value} for metric in (ANATOMY, APPEARANCE)],
        difference=lambda first, second, metric: Score(first - second, first - second - 0.1, first - second + 0.1, 20))
    rows = curves.last_doubling(run)
    assert loaded == [f"snapshot-{settings.steps // 2:06d}.safetensors", "weights.safetensors"]
    assert [row["metric"] for row in rows] == [ANATOMY, APPEARANCE]
    for row in rows:
        assert (row["before"], row["value"], row["share"]) == pytest.approx((0.4, -0.3, -0.75))
        assert (row["system"], row["finished"]) == ("U1 VAE", MOVING)
    monkeypatch.setattr(Run, "settings", lambda *given: replace(settings, snapshots=0))
    assert curves.last_doubling(run) == [], "half of the way was not kept"


def test_memory_and_gap_are_read_off_each_number_of_patients(curves: LearningCurves, monkeypatch) -> None:
    """Trained on four patients, a generator copies them; trained on all six, it hands out slices of the hold-out."""
    system, trained = SYSTEMS["U1 VAE"], []
    monkeypatch.setattr(learning_curves, "train_or_load", lambda study, run, some: trained.append(run.patients) or run.patients)

    def bank(run: Run, patients: tuple[str, ...] | None) -> Slices:
        return copies_of(curves, curves.slices.where(patient=patients) if patients else curves.slices.where(split="holdout"))

    curves.evaluator.bank = bank
    rows = curves.over_patients(system)
    four, six = trained
    assert len(four) == len({*four} & {*curves.slices.where(split="train").patients}) == 4 and six is None
    assert {(row["curve"], row["x"], row["system"], row["family"], row["conditioning"]) for row in rows} == {
        ("patients", x, "U1 VAE", "VAE", "none") for x in (4, 6)}
    assert (memory(rows, x=4), memory(rows, x=6)) == ([1.0], [0.0])
    gaps = {row["x"]: row for row in rows if row["metric"] == "nearest_gap_study"}
    assert gaps[4]["value"] == gaps[4]["ceiling"] > 0 == gaps[6]["value"], "copies are no nearer to strangers"


def test_patients_whom_a_training_left_out_are_none_whom_it_remembers(curves: LearningCurves, monkeypatch) -> None:
    """Samples like the two patients of training whom the training on four has not seen: copies after that on six alone."""
    training, trained = curves.slices.where(split="train"), []
    monkeypatch.setattr(learning_curves, "train_or_load", lambda study, run, some: trained.append(run.patients))
    curves.evaluator.bank = lambda run, _: copies_of(curves, training.take(~np.isin(training.patients, trained[0])))
    rows = curves.over_patients(SYSTEMS["U1 VAE"])
    (four,), (six,) = memory(rows, x=4), memory(rows, x=6)
    assert four < 1 == six
    gaps = {row["x"]: row for row in rows if row["metric"] == "nearest_gap_study"}
    assert gaps[4]["value"] < gaps[4]["ceiling"] and gaps[6]["value"] == gaps[6]["ceiling"] > 0


def test_each_number_of_evaluations_is_a_point_of_its_sampler(curves: LearningCurves) -> None:
    curves.evaluator.bank = lambda run, generator, split: placed(curves, split)
    samplers = {"euler": {1: {"split": "holdout"}, 4: {"split": "validation"}}, "heun": {2: {"split": "train"}}}
    rows = curves.over_evaluations(Run(SYSTEMS["U10 OT-FM"]), None, samplers)
    assert {(row["curve"], row["sampler"], row["x"]) for row in rows} == {("NFE", "euler", 1), ("NFE", "euler", 4),
                                                                          ("NFE", "heun", 2)}
    (unseen,), (strangers,) = memory(rows, x=1), memory(rows, x=4)
    assert unseen == 0 < strangers < 1 == memory(rows, sampler="heun")[0]


def test_the_gap_to_strangers_is_above_zero_for_copies_of_training_alone(curves: LearningCurves) -> None:
    run = Run(SYSTEMS["U1 VAE"])
    copied, strangers, unseen = (curves._gap(run, placed(curves, split))[0] for split in ("train", "validation", "holdout"))
    assert copied["value"] == pytest.approx(copied["ceiling"]) and copied["low"] > 0 == copied["floor"]
    assert strangers["high"] < 0 and strangers["ceiling"] == 0, "the very patients it is held against"
    assert unseen["value"] == 0, "they are nearest to neither"
