"""The design of the ablation is complete, the one evaluator tells good banks from bad ones, and pairs are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import discs

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.experiments import banks, learning_curves
from cmri_lib.experiments.banks import bank_folder, draw_bank, generator_digest, load_bank, sampling_conditions
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.learning_curves import LearningCurves, runs_over_patients
from cmri_lib.experiments.training import of_pairs, train_or_load
from cmri_lib.generators.base import draw
from cmri_lib.generators.source_domain import SourceDomain
from cmri_lib.measures.anatomy.adherence import adherence, adherence_bounds, adherence_difference
from cmri_lib.measures.anatomy.shapes import anatomy_of_samples
from cmri_lib.measures.anatomy.validity import Ranges, validity_of_samples
from cmri_lib.measures.fidelity.distances import distances
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.statistics.comparison import compare, differences
from cmri_lib.systems.ablation import FAMILIES, METHODS, ablation_systems
from cmri_lib.systems.label_maps import CHAINS
from cmri_lib.systems.register import SYSTEMS
from cmri_lib.systems.system import Run, Variant

SEGMENT = lambda images: np.select([images[:, 0] > 0.2, images[:, 0] > -0.55], [1, 2], 0).astype(np.uint8)  # noqa: E731
BLIND_TO_WALLS = lambda images: (SEGMENT(images) == 1).astype(np.uint8)  # noqa: E731


@pytest.mark.parametrize("tissues", [False, True])
def test_the_design_is_factorial_and_every_family_has_its_unconditional_system(tissues: bool) -> None:
    systems = list(ablation_systems(Vocabulary({}, tissues)))
    design = pd.DataFrame([s[:3] for s in systems], columns=["family", "content", "method"])
    conditioned = design[design["content"] != "none"]
    assert set(conditioned.groupby(["family", "content"]).size()) == {len(METHODS)} and not design.duplicated().any()
    assert list(design[design["content"] == "none"]["family"]) == list(FAMILIES)
    assert ("tissues" in set(design["content"])) == tissues
    assert len({s[3].id for s in systems}) == len(systems)
    assert len({s[3].pretrained.id for s in systems if s[0] == "flow"}) == 1, "one pretrained network for a family"


def test_a_structure_that_nobody_has_labelled_has_no_row(cohort: Slices) -> None:
    lv = Slices(cohort.images, (cohort.masks == 1).astype(np.uint8), cohort.table)
    segment = lambda images: (SEGMENT(images) == 1).astype(np.uint8)  # noqa: E731
    made = Evaluator(open_study("smoke", "phantom"), lv, 20, [anatomy_of_samples(segment)])
    made.__dict__["segmenter"] = made.__dict__["second_segmenter"] = segment
    bank = made.conditions.with_columns(source="x")
    assert {row["metric"] for row in made.adherence(bank)} == {"dice_LV", "dice_mean", "hd95_LV_mm", "missed_LV",
                                                               "dice_mean_second"}
    kept = {"anatomy_w1_lv_cm2", "anatomy_lv_missing"}
    assert {row["metric"] for row in made.real_rows()} == kept
    assert {row["metric"] for row in made.rows("x", Slices(bank.images, 0 * bank.masks, bank.table))} == kept


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


@pytest.fixture(scope="module")
def cohort() -> Slices:
    return concatenate([discs(6, 4, seed=k, split=split) for k, split in enumerate(("train", "validation", "test", "holdout"))])


@pytest.fixture(scope="module")
def evaluator(cohort: Slices) -> Evaluator:
    """An evaluator on the training-free space, without trained instruments."""
    made = Evaluator(open_study("smoke", "phantom"), cohort, 20, [distances(ClassicalFeatures())])
    made.__dict__["segmenter"], made.__dict__["spaces"] = SEGMENT, [ClassicalFeatures()]
    made.__dict__["second_segmenter"] = BLIND_TO_WALLS
    return made


def test_rows_are_those_of_the_measures_against_other_patients(evaluator: Evaluator, cohort: Slices) -> None:
    bank = discs(8, 3, seed=9, split="made")
    rows = evaluator.rows(SYSTEMS["U1 VAE"], Slices(bank.images, 0 * bank.masks, bank.table))
    others = cohort.where(split=["validation", "holdout"])
    measure = evaluator.measures[0]
    expected = compare(others, bank, measure, **evaluator.bounds[measure], **evaluator.options)
    assert [{k: row[k] for k in expected[0]} for row in rows] == expected, "samples without a mask have no adherence"
    assert {(r["system"], r["family"], r["conditioning"]) for r in rows} == {("U1 VAE", "VAE", "none")}
    assert not set(evaluator.conditions.patients) & set(evaluator.others.patients)


def test_samples_that_follow_masks_have_adherence_and_masks_alone_have_none(evaluator: Evaluator) -> None:
    good = evaluator.conditions
    rows = {row["metric"]: row for row in evaluator.rows("good", good)}
    assert rows["dice_LV"]["value"] > rows["dice_LV"]["floor"] + 0.1 and rows["dice_LV"]["system"] == "good"
    second = rows["dice_mean_second"]
    assert second["value"] < rows["dice_mean"]["value"] and second["floor"] < second["value"], "its own eyes, its own bounds"
    assert second["ceiling"] == pytest.approx(evaluator.second_bounds[1]["dice_mean"].mean()) != rows["dice_mean"]["ceiling"]
    gap = evaluator.difference(good, good.with_columns(source="same"), "dice_mean_second")
    assert gap.value == 0, "the difference is that of the second segmenter"
    blank = Slices(0 * good.images - 1, good.masks, good.table)
    assert evaluator.difference(good, blank, "dice_mean_second").value == pytest.approx(second["value"])
    assert not evaluator.adherence(Slices(0 * good.images, good.masks, good.table))


def test_differences_are_paired_and_unknown_metrics_are_refused(evaluator: Evaluator) -> None:
    good = evaluator.conditions
    noise = np.random.default_rng(0).uniform(-1, 1, good.images.shape).astype(np.float32)
    bad = Slices(noise, good.masks, good.table)
    expected = differences(evaluator.others, bad, good, evaluator.measures[0], **evaluator.options)["kid_classical"]
    assert evaluator.difference(bad, good, "kid_classical") == expected and expected.low > 0
    assert evaluator.difference(good, bad, "dice_LV").low > 0
    with pytest.raises(ParameterError, match="kid_study"):
        evaluator.difference(good, bad, "kid_study")
    assert evaluator.floor("kid_classical") == evaluator.bounds[evaluator.measures[0]]["floor"]["kid_classical"]
    real = {row["metric"]: row for row in evaluator.real_rows()}
    assert real["kid_classical"]["value"] == real["kid_classical"]["floor"] and real["kid_classical"]["system"] == "real"


def test_masks_may_be_compared_with_the_test_patients_themselves(cohort: Slices) -> None:
    on_test = Evaluator(open_study("smoke", "phantom"), cohort, 20, [], real=("test",))
    assert set(on_test.others.table["split"]) == {"test"} and set(on_test.reference.table["split"]) == {"validation", "holdout"}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("samples", [1, 30, 200])
def test_conditions_are_whole_phases_of_every_patient_before_any_comes_twice(cohort: Slices, samples: int, seed: int) -> None:
    phases = np.where(np.arange(len(cohort)) % 2, "ES", "ED")
    phased = cohort.with_columns(phase=phases)
    found, split = sampling_conditions(phased, samples, seed), phased.where(split="test").table
    whole = {key: sorted(part["index"]) for key, part in split.groupby(["scan", "phase"])}
    rows = list(zip(found.table["scan"], found.table["phase"]))
    starts = [k for k in range(len(rows)) if k == 0 or rows[k] != rows[k - 1]]
    blocks = [rows[k] for k in starts]
    assert set(found.table["split"]) == {"test"}
    for first, last in zip(starts, [*starts[1:], len(rows)]):
        assert sorted(found.table["index"].iloc[first:last]) == whole[rows[first]]
    assert len(found) >= samples > len(found) - (len(found) - starts[-1]), "as many as are asked for, and no phase more"
    once, patients = blocks[:len(whole)], split["patient"].nunique()
    assert len(set(once)) == len(once), "all phases, before any comes again"
    assert len({scan for scan, _ in blocks[:patients]}) == min(patients, len(blocks)), "every patient, before any comes again"
    assert blocks[len(whole):2 * len(whole)] == once[:max(0, len(blocks) - len(whole))][:len(whole)], "in the same order again"


def test_banks_lie_by_stage_run_and_split_and_come_back(cohort: Slices, tmp_path) -> None:
    study = open_study("smoke", "phantom")
    study = type(study)(tmp_path, study.params)
    run = Run(SYSTEMS["U1 VAE"])
    generator = run.system.build(study.params, Vocabulary.of(cohort), 0)
    for split in ("test", "train"):
        conditions = sampling_conditions(cohort, 6, study.seed, split)
        made = draw_bank(study, run, generator, conditions)
        assert np.array_equal(load_bank(study, run, split).images, made.images)
    assert bank_folder(study, run, "test") == study.work("banks") / "vae" / "u1-vae" / "test"
    with pytest.raises(DataError, match="several|splits"):
        draw_bank(study, run, generator, cohort)
    chain = CHAINS["C5 uniform-EF masks + SPADE cGAN"]
    assert bank_folder(study, chain, "new") == study.work("banks") / "masks" / chain.folder / "new"


def test_what_is_chosen_for_the_sampler_has_a_bank_of_its_own(cohort: Slices, tmp_path) -> None:
    study = open_study("smoke", "phantom")
    study, run = type(study)(tmp_path, study.params), Run(SYSTEMS["U6 DDPM"])
    generator = run.system.build(study.params, Vocabulary.of(cohort), 0)
    conditions = sampling_conditions(cohort, 6, study.seed)
    one, other = (draw_bank(study, run, generator, conditions, below=tmp_path / "own", sampler=kind)
                  for kind in ("ddim", "ddpm"))
    assert not np.array_equal(one.images, other.images)
    kept = Slices.load(bank_folder(study, run, "test sampler ddim", tmp_path / "own"))
    assert np.array_equal(kept.images, one.images) and not study.work("banks").exists()


@pytest.mark.parametrize(("name", "sampler"), [
    ("U1 VAE", {}), ("U10 OT-FM", {"solver": "euler"}), ("U10 OT-FM", {"steps": 3}), ("U6 DDPM", {"sampler": "ddim"}),
    ("U6 DDPM", {"clip": False}), ("U9 MaskGIT", {"temperature": 1.0}), ("U7 LDM-KL", {"steps": 2})])
def test_a_bank_is_drawn_again_only_if_what_it_depends_on_has_changed(name: str, sampler: dict, cohort: Slices, tmp_path,
                                                                      monkeypatch) -> None:
    study = open_study("smoke", "phantom")
    study = type(study)(tmp_path, study.params)
    run, drawn = Run(SYSTEMS[name]), []
    monkeypatch.setattr(banks, "draw", lambda g, c, *rest, **more: drawn.append(len(c)) or draw(g, c, *rest, **more))
    generator = run.system.build(study.params, Vocabulary.of(cohort), 0)
    conditions = sampling_conditions(cohort, 6, study.seed)
    first, second = (draw_bank(study, run, generator, conditions) for _ in range(2))
    assert len(drawn) == 1 and np.array_equal(first.images, second.images) and first.table.equals(second.table)
    draw_bank(study, run, generator, conditions.with_columns(vendor="another"))
    draw_bank(type(study)(tmp_path, replace(study.params, seed=study.seed + 1)), run, generator, conditions)
    assert len(drawn) == 3
    draw_bank(study, run, generator, conditions)
    drawn.clear()
    if sampler:
        prior = getattr(generator, "prior", generator)
        training, prior.settings = generator_digest(generator), replace(prior.settings, **sampler)
        assert generator_digest(generator) == training, "scores of attacks, which draw nothing, are kept"
        draw_bank(study, run, generator, conditions)
        assert len(drawn) == 1, "samples of another sampler are returned"
    with torch.no_grad():
        for values in generator.parameters():
            values.add_(0.1)
    other = draw_bank(study, run, generator, conditions)
    assert len(drawn) == 1 + bool(sampler) and not np.array_equal(other.images, first.images)
    assert np.array_equal(load_bank(study, run).images, other.images)


@pytest.mark.parametrize("name", ["U1 VAE", "U2 DCGAN", "U4 progressive GAN", "U5 StyleGAN2-ADA", "U7 LDM-KL", "U9 MaskGIT",
                                  "U10 OT-FM", "C2 SPADE cGAN", "C13 source-domain diffusion"])
def test_what_was_just_trained_has_the_digest_of_what_is_loaded(name: str, cohort: Slices, tmp_path) -> None:
    study = Study(tmp_path, open_study("smoke", "phantom").params)
    run = Run(SYSTEMS[name], variant=Variant("quick", training={"steps": 3, "batch": 4, "log_every": 1}))
    some = cohort.where(split=["train", "validation"])
    trained, loaded = (train_or_load(study, run, some) for _ in range(2))
    if isinstance(trained, SourceDomain):
        images = torch.from_numpy(some.images[:1])
        trained.translate(images, torch.zeros_like(images), strength=0.5, finest=4.0, steps=2)
    assert generator_digest(trained) == generator_digest(loaded)


def test_adherence_difference_is_paired_and_bounds_change_nothing() -> None:
    good = discs(6, 4, split="test")
    noise = np.random.default_rng(0).uniform(-1, 1, good.images.shape).astype(np.float32)
    bad = type(good)(noise, good.masks, good.table)
    gain = adherence_difference(good, bad, SEGMENT, "dice_LV", resamples=100)
    dice = [next(r for r in adherence(good, s, SEGMENT, resamples=100) if r["metric"] == "dice_LV") for s in (good, bad)]
    assert np.isclose(gain.value, dice[0]["value"] - dice[1]["value"]) and gain.low > 0
    assert adherence(good, bad, SEGMENT, resamples=100, bounds=adherence_bounds(good, SEGMENT)) == \
        adherence(good, bad, SEGMENT, resamples=100)


def test_valid_hearts_are_counted_in_what_the_segmenter_sees() -> None:
    real, training = discs(6, 4, split="test"), discs(6, 4, seed=1)
    seen = lambda images: np.concatenate([real.masks[:12], 0 * real.masks[12:]])  # noqa: E731
    measure = validity_of_samples(Ranges.of(training), seen)
    floor = {"heart_valid": Score(1, 1, 1, n=24)}
    row, = compare(real, real, measure, floor=floor, resamples=20)
    valid = validity_of_samples(Ranges.of(training), lambda images: real.masks).embed(real)[:12].sum() / 24
    assert row["metric"] == "heart_valid" and np.isclose(row["value"], valid) and 0 < valid <= 0.5


def test_pairs_are_found_where_both_categories_agree() -> None:
    some = discs(4, 1).with_columns(disease=["DCM", "DCM", "NOR", "NOR"], vendor=["A", "B", "A", "B"])
    assert list(of_pairs(some, (("DCM", "B"), ("NOR", "A")))) == [False, True, True, False]
    assert not of_pairs(some, ()).any()
