"""The audit of a run: what is planted is found, whom an attack is told to tell apart, and how many patients it names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import discs

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import open_study
from cmri_lib.errors import DataError
from cmri_lib.experiments.power_audit import PowerAudit
from cmri_lib.experiments.privacy_audit import NULL, PrivacyAudit, facts, identified
from cmri_lib.experiments.privacy_runs import overfitted, shadow_thirds
from cmri_lib.experiments.provenance import patients_seen
from cmri_lib.privacy.attack import Attack, PatientScores, Remembered, Target, auc
from cmri_lib.privacy.controls import DISGUISES
from cmri_lib.privacy.nearest_neighbours import Pixels
from cmri_lib.reporting.privacy_metrics import ATTACKS
from cmri_lib.systems.register import system
from cmri_lib.systems.system import Run
from cmri_lib.training.loop import snapshot_file

STUDY = open_study("smoke", "phantom")
SLICES = concatenate([discs(24, 4, 16), *(discs(8, 4, 16, seed=k, split=split) for k, split in
                                          enumerate(("holdout", "validation", "test"), 1))])


class Told(Attack):
    """A score for every (target, slice), by a function of the target and a patient."""

    name = "loss"

    def __init__(self, function: Callable[[Target, str], float]):
        self.function = function

    def suits(self, target: Target) -> bool:
        return True

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        return pd.DataFrame({"s": [self.function(target, patient) for patient in slices.patients]})


class Unturned:
    """Pixels of an image and its mirror image together, in which both lie at one place."""

    name, dimension = "unturned", 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return Pixels()(images + images[..., ::-1])


def patients(members: np.ndarray, nonmembers: np.ndarray) -> PatientScores:
    names = (np.array([f"{side}{i}" for i in range(len(x))]) for side, x in (("m", members), ("n", nonmembers)))
    return PatientScores(members, nonmembers, *names, ("s",))


@pytest.mark.parametrize(("strangers", "sure", "named"),
                         [(19, 20, 20), (18, 20, 0), (39, 10, 10), (38, 10, 0), (399, 1, 1)])
def test_members_are_named_if_strangers_are_many(strangers: int, sure: int, named: int) -> None:
    """Whoever is above all strangers has p = 1 / (strangers + 1), of which k of 20 need .05 k / 20."""
    scores = np.concatenate([np.full(sure, 10.0), np.full(20 - sure, -10.0)])
    assert identified(patients(scores, np.zeros(strangers))) == (named, 20)
    assert identified(patients(scores, np.zeros(strangers)), wrong=1e-4) == (0, 20)


def test_of_those_whom_nobody_has_learnt_from_hardly_any_are_named() -> None:
    rng, wrong = np.random.default_rng(0), []
    for _ in range(200):
        named, members = identified(patients(rng.normal(size=20), rng.normal(size=999)))
        wrong.append(named > 0)
        assert members == 20
    assert np.mean(wrong) < 0.1, "one in twenty audits at most names anybody"


def test_of_the_names_few_are_false() -> None:
    """Half of those who are tried have taught the system; the other half are strangers."""
    rng, false = np.random.default_rng(1), []
    for _ in range(200):
        known, others = rng.normal(4, 1, 30), rng.normal(size=30)
        p = np.argsort(np.argsort(-np.concatenate([known, others])))
        named, _ = identified(patients(np.concatenate([known, others]), rng.normal(size=400)))
        false.append((p[30:] < named).sum() / max(1, named))
    assert np.mean(false) < 0.05 + 3 * np.std(false) / np.sqrt(200) and np.mean(false) > 0


def test_planted_copies_are_found_in_the_spaces_that_can_see_them() -> None:
    audit = PrivacyAudit(STUDY, SLICES)
    audit.__dict__["spaces"] = [Pixels(), Unturned()]
    recall, found = audit.planted_recall, audit.planted
    assert list(recall) == list(DISGUISES) and len(found) == 3 * len(DISGUISES)
    assert found["exact", "pixel"] == found["exact", "unturned"] == recall["exact"] == 1
    assert found["mirrored", "pixel"] < 0.5 and found["mirrored", "unturned"] == recall["mirrored"] == 1


def test_either_space_counts_copies_that_one_of_them_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    suspects = {"pixel": np.array([1, 1, 0, 0], bool), "unturned": np.array([0, 1, 1, 0], bool)}
    audit = PrivacyAudit(STUDY, SLICES)
    audit.__dict__["spaces"] = [Pixels(), Unturned()]
    monkeypatch.setattr(audit, "copy_audit", lambda copies, training, space: SimpleNamespace(suspects=suspects[space.name]))
    assert {audit.planted["exact", name] for name in suspects} == {0.5} and set(audit.planted_recall.values()) == {0.75}


def test_every_attack_has_a_name_for_readers_and_a_gan_is_asked_what_its_critic_says_around_an_image_too() -> None:
    audit = PrivacyAudit(STUDY, SLICES)
    audit.__dict__["spaces"] = [Pixels(), Unturned()]
    assert {attack.name for attack in audit.attacks} <= set(ATTACKS)
    gan = Target("gan", frozenset(), system("U2 DCGAN").build(STUDY.params, Vocabulary({}), 0))
    assert sorted(a.name for a in audit.attacks if a.suits(gan)) == ["critic", "inversion", "pfami_critic"]


def test_leakage_along_training_is_that_of_the_weights_kept_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack learns the more of members, the later the weights; it remembers, so each step is a target of its own."""
    audit, run, weights = PrivacyAudit(STUDY, SLICES), overfitted(STUDY, SLICES, "U10 FM"), SimpleNamespace(file=None)
    target, settings, rank = Target("g", frozenset(run.patients), weights), run.settings(STUDY.params, STUDY.seed), {}
    files = [snapshot_file("kept", step) for step in settings.snapshot_steps()] + [Path("kept/weights.safetensors")]
    members = sorted(set(audit.members(run).patients))

    def learnt(target: Target, patient: str) -> float:
        return float(patient in members[:1 + files.index(target.generator.file)])

    audit.__dict__["attacks"] = [SimpleNamespace(name="sima"), Remembered(Told(learnt))]
    monkeypatch.setattr(audit, "target", lambda run: target)
    monkeypatch.setattr("cmri_lib.experiments.privacy_audit.training_folder", lambda study, run: Path("kept"))
    monkeypatch.setattr("cmri_lib.experiments.privacy_audit.load_weights", lambda model, file: setattr(model, "file", file))
    audit.attacks[0].suits = audit.attacks[1].suits
    found = audit.along_training(run)
    assert [seen for seen, _ in found] == [step * settings.batch for step in (*settings.snapshot_steps(), settings.steps)]
    # Whoever was learnt from scores above all strangers, the others like them: 1/2 + half the share.
    assert [score.value for _, score in found] == pytest.approx([0.5 + (1 + k) / len(members) / 2 for k in range(len(files))])


def test_whose_disease_a_generator_has_learnt_by_heart_is_exposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members of one disease score above all, those of the others like strangers; a disease of too few is left out."""
    disease = {patient: ("DCM", "HCM", "MINF")[k % 2 if k else 2] for k, patient in enumerate(np.unique(SLICES.patients))}
    slices = SLICES.with_columns(disease=np.array([disease[p] for p in SLICES.patients]), vendor="")
    audit, run = PrivacyAudit(STUDY, slices), overfitted(STUDY, slices, "U10 FM")
    target = Target("g", frozenset(slices.where(split="train").patients))
    audit.__dict__["attacks"] = [Told(lambda target, patient: float(patient in target.seen and disease[patient] == "HCM"))]
    monkeypatch.setattr(audit, "target", lambda run: target)
    monkeypatch.setattr(audit, "members", lambda run: slices.where(split="train"))
    found = {(row["kind"], row["group"]): row["value"] for row in audit.group_rows(run, "loss")}
    assert found == {("disease", "DCM"): 0.5, ("disease", "HCM"): 1.0}  # no vendor is known, and MINF has one patient


def test_rows_and_facts_are_of_all_trainings_and_controls_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of three trainings has learnt everybody by heart, the others nobody; the twin all of its own."""
    fidelity = replace(STUDY.params.fidelity, seeds=3, resamples=100)
    study = replace(STUDY, params=replace(STUDY.params, fidelity=fidelity))
    name, audit = "U10 FM", PrivacyAudit(study, SLICES)
    run, twin = Run(system(name)), audit.overfitted(name)
    samples = SLICES.where(split="test").with_columns(source=name)
    targets = {one.folder: Target(one.folder, patients_seen(one, SLICES), None, samples)
               for one in (twin, *audit.trainings(run))}
    knows = {run.folder, twin.folder}
    audit.__dict__["attacks"] = [Told(lambda target, patient: float(target.name in knows and patient in target.seen))]
    audit.__dict__["spaces"] = [Pixels(), Unturned()]
    monkeypatch.setattr(audit, "target", lambda run: targets[run.folder])
    found = {row["system"]: row for row in audit.rows(run) if row["metric"] == "attack_auc_loss"}
    assert {one: (row["value"], row["seeds"]) for one, row in found.items()} == {
        run.id: (pytest.approx(2 / 3), 3), twin.id: (1, 1), f"{run.id}, {NULL}": (0.5, 1)}
    assert audit.score(run, "loss").value == pytest.approx(2 / 3)
    told, copies = facts(audit, run), audit.copies(run)
    assert told["trainings"] == 3 and told["attacks"][0]["control"] == 1 and told["attacks"][0]["null"] == 0.5
    assert told["attacks"][0]["auc"] == pytest.approx(2 / 3) and told["attacks"][0]["df"] < 50
    assert told["named"] == identified(audit.by_patient(run, "loss")[0])[0], "names are of the first training"
    for field, score in (("near_copies", copies.near_copies()), ("near_copy_excess", copies.near_copy_excess()),
                         ("swapped_share", copies.swapped_share())):
        assert told[field][:3] == [score.value, score.low, score.high]


def test_shadows_are_asked_about_the_first_third_and_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patients differ more than being learnt from matters. Whoever compares with other trainings sees through that."""
    audit, hard = PrivacyAudit(STUDY, SLICES), {p: 9.0 * k for k, p in enumerate(np.unique(SLICES.patients)[::-1])}
    audit.__dict__["loss"] = Told(lambda target, patient: hard[patient] + (patient in target.seen))
    monkeypatch.setattr("cmri_lib.experiments.power_audit.train_or_load", lambda study, run, slices: None)
    power, (inside, outside, others) = PowerAudit(audit), shadow_thirds(STUDY, SLICES)
    found = power.scores()
    assert list(found) == ["loss", "loss_calibrated", "lira", "rmia"] and power.reference.patients == tuple(others)
    for name, one in found.items():
        assert set(one["mean"].member_names) == set(inside) and set(one["mean"].nonmember_names) == set(outside)
        assert (auc(one["mean"].members, one["mean"].nonmembers) == 1) == (name != "loss"), name
    np.testing.assert_allclose(found["loss_calibrated"]["mean"].members, 1)
    np.testing.assert_allclose(found["loss_calibrated"]["mean"].nonmembers, 0)


def test_no_strangers_no_population_and_no_loss_no_audit_of_power(monkeypatch: pytest.MonkeyPatch) -> None:
    some = SLICES.where(split=["train", "holdout", "test"])
    monkeypatch.setattr("cmri_lib.experiments.power_audit.train_or_load", lambda study, run, slices: None)
    audit = PrivacyAudit(STUDY, some)
    with pytest.raises(DataError, match="no denoising loss"):
        PowerAudit(audit).scores()
    audit.__dict__["loss"] = Told(lambda target, patient: float(patient in target.seen))
    assert "rmia" not in PowerAudit(audit).scores()
