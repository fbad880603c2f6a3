"""The design of the ablation is complete, the one evaluator tells good banks from bad ones, and pairs are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import discs
from judges import SEGMENT, four_splits
from sklearn.metrics import f1_score

from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.experiments import banks
from cmri_lib.experiments.banks import bank_folder, draw_bank, generator_digest, load_bank, sampling_conditions
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.training import of_pairs, train_or_load
from cmri_lib.generators.base import draw
from cmri_lib.generators.source_domain import SourceDomain
from cmri_lib.measures.anatomy.adherence import adherence, adherence_bounds, adherence_difference
from cmri_lib.measures.anatomy.shapes import anatomy_of_samples
from cmri_lib.measures.anatomy.validity import Ranges, validity_of_samples
from cmri_lib.measures.fidelity.distances import distances
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.statistics.comparison import Embedding, Measure, Metric, compare
from cmri_lib.systems.ablation import FAMILIES, METHODS, ablation_systems
from cmri_lib.systems.label_maps import CHAINS
from cmri_lib.systems.register import SYSTEMS
from cmri_lib.systems.system import Run, Variant

BLIND_TO_WALLS = lambda images: (SEGMENT(images) == 1).astype(np.uint8)  # noqa: E731


def dice_of(segment: Callable, slices: Slices, label: int) -> float:
    """Mean over volumes of scikit-learn's F1 score of their voxels."""
    volumes = slices.table.groupby(["scan", "phase"]).indices.values()
    return np.mean([f1_score(*((labels[rows] == label).ravel() for labels in (slices.masks, segment(slices.images))))
                    for rows in volumes])


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


@pytest.fixture(scope="module")
def cohort() -> Slices:
    return four_splits()


@pytest.fixture(scope="module")
def evaluator(cohort: Slices) -> Evaluator:
    """An evaluator on the training-free space, without trained instruments."""
    made = Evaluator(open_study("smoke", "phantom"), cohort, 20, [distances(ClassicalFeatures())])
    made.__dict__["segmenter"], made.__dict__["spaces"] = SEGMENT, [ClassicalFeatures()]
    made.__dict__["second_segmenter"] = BLIND_TO_WALLS
    return made


def brightness(real: Embedding, made: Embedding) -> list:
    """How much brighter samples are than real slices, and how bright both are together."""
    return [lambda u, v: float(np.average(made.values, weights=v) - np.average(real.values, weights=u)),
            lambda u, v: float((real.values @ u + made.values @ v) / (u.sum() + v.sum()))]


@pytest.fixture(scope="module")
def by_brightness(cohort: Slices) -> Evaluator:
    """An evaluator whose only measure is a mean: with as many samples as there are slices of a split, all can be worked out."""
    measure = Measure((Metric("gap", "zero"), Metric("level", "higher")),
                      lambda slices: slices.images.mean((1, 2, 3)).astype(float), brightness)
    return Evaluator(open_study("smoke", "phantom"), cohort, 24, [measure])


def test_rows_compare_samples_with_other_patients_than_those_of_their_conditions(by_brightness: Evaluator,
                                                                                 cohort: Slices) -> None:
    bank = discs(8, 3, seed=9, split="made")
    rows = by_brightness.rows(SYSTEMS["U1 VAE"], Slices(bank.images, 0 * bank.masks, bank.table))
    mean = {split: cohort.where(split=split).images.mean() for split in ("train", "validation", "test", "holdout")}
    others = (mean["validation"] + mean["holdout"]) / 2  # as many slices of both
    gap, level = rows
    assert (gap["metric"], level["metric"]) == ("gap", "level"), "samples without a mask have no adherence"
    assert gap["value"] == pytest.approx(bank.images.mean() - others, rel=1e-4)
    # The floor parts all real patients but those of training, the ceiling hands out training slices.
    assert level["floor"] == pytest.approx((2 * others + mean["test"]) / 3, rel=1e-4)
    assert gap["ceiling"] == pytest.approx(mean["train"] - others, rel=1e-4)
    assert gap["low"] < gap["value"] < gap["high"] and gap["n"] == 24
    assert {(r["system"], r["family"], r["conditioning"]) for r in rows} == {("U1 VAE", "VAE", "none")}
    assert not set(by_brightness.conditions.patients) & set(by_brightness.others.patients)
    assert by_brightness.floor("level").value == level["floor"]


def test_a_difference_is_that_of_the_samples_since_both_meet_the_same_real_patients(by_brightness: Evaluator) -> None:
    """A bank, and the same a twentieth brighter: both vary with the patients that are drawn, their difference does not."""
    bank = by_brightness.conditions
    brighter = Slices(0.9 * bank.images + np.float32(0.05), bank.masks, bank.table)
    plain = Slices(0.9 * bank.images, bank.masks, bank.table)
    found = by_brightness.difference(brighter, plain, "gap")
    assert (found.value, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05), abs=1e-6)
    alone = by_brightness.rows("x", Slices(plain.images, 0 * plain.masks, plain.table))[0]
    assert alone["high"] - alone["low"] > 0.005


def test_samples_that_follow_masks_have_adherence_and_masks_alone_have_none(evaluator: Evaluator) -> None:
    good = evaluator.conditions
    rows = {row["metric"]: row for row in evaluator.rows("good", good)}
    assert rows["dice_LV"]["value"] > rows["dice_LV"]["floor"] + 0.1 and rows["dice_LV"]["system"] == "good"
    second = rows["dice_mean_second"]
    assert second["value"] < rows["dice_mean"]["value"] and second["floor"] < second["value"], "its own eyes, its own bounds"
    for row, eyes in ((second, BLIND_TO_WALLS), (rows["dice_mean"], SEGMENT)):  # real images, as each of the two sees them
        assert row["ceiling"] == pytest.approx(np.mean([dice_of(eyes, evaluator.test, label) for label in (1, 2, 3)]))
    gap = evaluator.difference(good, good.with_columns(source="same"), "dice_mean_second")
    assert gap.value == 0, "the difference is that of the second segmenter"
    blank = Slices(0 * good.images - 1, good.masks, good.table)
    assert evaluator.difference(good, blank, "dice_mean_second").value == pytest.approx(second["value"])
    assert not evaluator.adherence(Slices(0 * good.images, good.masks, good.table))


def test_noise_is_further_from_real_slices_and_unknown_metrics_are_refused(evaluator: Evaluator) -> None:
    good = evaluator.conditions
    noise = np.random.default_rng(0).uniform(-1, 1, good.images.shape).astype(np.float32)
    bad = Slices(noise, good.masks, good.table)
    assert evaluator.difference(bad, good, "kid_classical").low > 0
    assert evaluator.difference(good, bad, "dice_LV").low > 0
    with pytest.raises(ParameterError, match="kid_study"):
        evaluator.difference(good, bad, "kid_study")
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


def test_a_bank_that_is_not_there_names_the_notebook_that_draws_it(tmp_path) -> None:
    study = open_study("smoke", "phantom")
    (tmp_path / "dvc.yaml").write_text((study.root / "dvc.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    study = type(study)(tmp_path, study.params)
    for name, number in (("U1 VAE", "02"), ("U7 LDM-KL", "04"), ("C16 MOTFM", "07")):
        with pytest.raises(DataError, match=f"(?s)slices.safetensors: no samples of {name}.*run {number} --profile smoke"):
            load_bank(study, Run(SYSTEMS[name]))


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
    expected = [dice_of(SEGMENT, some, 1) for some in (good, bad)]
    assert gain.value == pytest.approx(expected[0] - expected[1]) and gain.low > 0
    found = {row["metric"]: row["value"] for row in adherence(good, bad, SEGMENT, resamples=100)}
    assert found["dice_LV"] == pytest.approx(expected[1])
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
