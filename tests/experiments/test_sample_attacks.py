"""From samples alone those are recognised whose slices were memorised, and nobody else; an audit without power says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import discs, split_cohort

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError
from cmri_lib.evaluate import main
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.own_generator import Brought, judge, trained_copy_detector
from cmri_lib.experiments.privacy_audit import BLIND, NULL
from cmri_lib.experiments.privacy_runs import copy_detector_training
from cmri_lib.experiments.sample_attacks import FEWEST, PLANTED, Membership, infer_members
from cmri_lib.experiments.sample_report import summary_of, write_report
from cmri_lib.experiments.sample_sections import copies, membership
from cmri_lib.measures.fidelity.distances import distances
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.privacy.copy_detector import train_copy_detector

OURS = Brought("mine", "none")


@pytest.fixture(scope="module")
def cohort() -> Slices:
    """24 training patients and as many of the hold-out, validation and test patients, of one population."""
    return split_cohort(train=24, validation=12, test=6, holdout=24)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    params = open_study("smoke", "phantom").params
    return Study(tmp_path, replace(params, privacy=replace(params.privacy, patients=24, slices=4),
                                   fidelity=replace(params.fidelity, resamples=500)))


def disturbed(slices: Slices, noise: float = 0.05) -> Slices:
    """Samples of a generator that has learnt these slices by heart."""
    images = slices.images + noise * np.random.default_rng(0).standard_normal(slices.images.shape)
    names = [f"sample {i}" for i in range(len(slices))]
    return Slices.from_arrays(np.clip(images, -1, 1).astype(np.float32), None, names, value_range=(-1, 1), spacing=3.0)


def attacked(study: Study, cohort: Slices, samples: Slices) -> Membership:
    return infer_members(study, OURS, samples, cohort.where(split="train"), cohort)


def test_who_was_memorised_is_recognised(study: Study, cohort: Slices) -> None:
    found = attacked(study, cohort, disturbed(cohort.where(split="train")))
    assert found.exposed and found.strongest.found.value > 0.99 and found.verdict() == "sound"
    assert found.members == found.strangers == 24
    assert "**Members are recognised" in membership(found)


def test_who_was_not_is_not(study: Study, cohort: Slices) -> None:
    honest = attacked(study, cohort, disturbed(discs(24, 4, seed=9)))
    assert not honest.exposed and honest.verdict() == "sound"
    assert all(one.found.low <= 0.5 for one in honest.attacks)
    assert "Members are not seen to be recognised" in membership(honest)


def test_samples_that_copy_strangers_speak_against_membership(study: Study, cohort: Slices) -> None:
    """Turned round, the attacks are as sure: those whom they score high were not learnt from, so nobody is exposed."""
    found = attacked(study, cohort, disturbed(cohort.where(split="holdout")))
    assert not found.exposed and found.strongest.found.high < 0.5


def test_planted_copies_have_an_auc_of_one_in_pixels(study: Study, cohort: Slices) -> None:
    """A copy has distance 0 to its original, and to nobody else's slice."""
    found = attacked(study, cohort, disturbed(discs(24, 4, seed=9)))
    assert next(one for one in found.attacks if one.attack == "distance_pixel").planted.value == 1.0


def test_too_few_samples_find_nobody_and_say_so(study: Study, cohort: Slices) -> None:
    """Two copies betray two members of 24 at most."""
    found = attacked(study, cohort, disturbed(cohort.where(split="train").take([0, 4])))
    assert found.verdict().startswith("broken") and "too few samples" in found.verdict()


def test_members_who_differ_anyhow_break_the_audit(study: Study, cohort: Slices) -> None:
    train = (cohort.table["split"] == "train").to_numpy()
    images = np.where(train[:, None, None, None], -cohort.images, cohort.images)
    cohort = replace(cohort, images=images)
    found = attacked(study, cohort, disturbed(cohort.where(split="train")))
    assert found.strongest.found.value > 0.99 and found.blind.low > 0.5 and not found.exposed
    assert "without any samples" in found.verdict() and "The audit is broken, so it says nothing" in membership(found)


def test_whom_a_generator_has_seen_is_no_stranger(study: Study, cohort: Slices, quick: list) -> None:
    seen = sorted(set(cohort.where(split="holdout").patients))[:8]
    found = judge(study, cohort, disturbed(cohort.where(patient=seen)), "mine", learnt_from=seen, measures=quick).membership
    assert (found.members, found.strangers) == (8, 16) and found.strongest.found.value > 0.99


def test_without_a_reference_there_is_no_density_ratio(study: Study, cohort: Slices) -> None:
    some = cohort.where(split=["train", "holdout"])
    assert [one.attack for one in attacked(study, some, disturbed(some)).attacks] == ["distance_pixel", "distance_classical"]
    assert "domias_classical" in [one.attack for one in attacked(study, cohort, disturbed(some)).attacks]


def test_too_few_patients_on_either_side_are_named(study: Study, cohort: Slices) -> None:
    few = sorted(set(cohort.where(split="holdout").patients))[:FEWEST - 1]
    rest = cohort.take(~np.isin(cohort.patients, sorted(set(cohort.where(split="holdout").patients) - set(few))))
    with pytest.raises(DataError, match=f"(?s)holdout.*{FEWEST - 1} hold-out patients"):
        attacked(study, rest, disturbed(cohort))
    member = cohort.where(patient=cohort.patients[0])
    with pytest.raises(DataError, match="(?s)trained-on.*1 members"):
        infer_members(study, OURS, disturbed(cohort), member, cohort)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list:
    """Measures that need no training."""
    monkeypatch.setattr(Evaluator, "spaces", [space := ClassicalFeatures()])
    return [distances(space)]


def test_the_report_tells_of_it_in_every_form(study: Study, cohort: Slices, quick: list, tmp_path: Path) -> None:
    members = cohort.where(split="train")
    seen = sorted(set(members.patients))
    found = judge(study, cohort, disturbed(members), "mine", learnt_from=seen, measures=quick)
    assert "Patients who were learnt from are recognised from the samples alone: AUC 1.00" in summary_of(found)
    page = write_report(study, found, tmp_path / "report")
    for text in (page.read_text(), (tmp_path / "report" / "report.md").read_text()):
        assert "Who was learnt from?" in text and "density ratio (DOMIAS)" in text and "The audit is sound" in text
        assert not any(name in text for name in seen)
    facts = json.loads((tmp_path / "report" / "report.json").read_text())["membership"]
    table = pd.read_csv(tmp_path / "report" / "scores.csv").set_index(["system", "metric"])["value"]
    assert facts["exposed"] and facts["verdict"] == "sound"
    for one in facts["attacks"]:
        for name, key in (("mine", "found"), (f"mine, {PLANTED}", "planted"), (f"mine, {NULL}", "null")):
            assert table[name, f"attack_auc_{one['attack']}"] == pytest.approx(one[key]["value"], rel=1e-5)
    assert table[f"mine, {BLIND}", "attack_auc_blind"] == pytest.approx(facts["blind"]["value"], rel=1e-5)


def test_nobody_is_attacked_whom_nobody_has_named(study: Study, cohort: Slices, quick: list, tmp_path: Path) -> None:
    found = judge(study, cohort, disturbed(cohort.where(split="train")), "mine", measures=quick)
    write_report(study, found, tmp_path / "report")
    assert found.membership is None and "Who was learnt from" not in (tmp_path / "report" / "report.md").read_text()


def test_too_few_strangers_leave_out_the_attacks_alone(study: Study, cohort: Slices, quick: list) -> None:
    few = sorted(set(cohort.where(split="holdout").patients))[:4]
    some = concatenate([cohort.where(split=["train", "validation", "test"]), cohort.where(patient=few)])
    found = judge(study, some, disturbed(cohort.where(split="train")), "mine", measures=quick,
                  learnt_from=sorted(set(cohort.where(split="train").patients)))
    assert found.membership is None and found.copies is not None
    assert "no inference of membership: 4 hold-out patients" in found.notes[0]


def test_the_command_attacks_those_of_the_table(study: Study, cohort: Slices, quick: list, tmp_path: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmri_lib.evaluate.open_study", lambda *of: study)
    monkeypatch.setattr(Evaluator, "measures", quick)
    cohort.save(study.work("slices"))
    members = cohort.where(split="train")
    (tmp_path / "mine").mkdir()
    np.save(tmp_path / "mine" / "a.npy", disturbed(members).images)
    pd.DataFrame({"patient": sorted(set(members.patients))}).to_csv(tmp_path / "patients.csv", index=False)
    assert main([str(tmp_path / "mine"), "--out", str(tmp_path / "out"), "--trained-on", str(tmp_path / "patients.csv"),
                 "--cost", "training_seconds=900", "device=a laptop"]) == 0
    facts = json.loads((tmp_path / "out" / "report.json").read_text())
    assert facts["membership"]["exposed"] and facts["cost"] == {"training_seconds": 900, "device": "a laptop"}
    assert "| Training time" in (text := (tmp_path / "out" / "report.md").read_text()) and "| a laptop |" in text
    assert 900 in pd.read_csv(tmp_path / "out" / "scores.csv").query("metric == 'training_seconds'")["value"].tolist()


def test_copies_are_sought_by_the_copy_detector_where_there_is_one(study: Study, cohort: Slices, quick: list) -> None:
    assert trained_copy_detector(study, cohort.where(split="train")) is None
    samples = disturbed(discs(4, 4, seed=9))
    without = judge(study, cohort, samples, "mine", measures=quick).copies
    assert without.spaces == ("pixel", "classical") and "No copy detector is trained" in copies(without, len(samples))
    settings, folder = copy_detector_training(study)
    trained = train_copy_detector(cohort.where(split="train"), settings, folder)
    again = trained_copy_detector(study, cohort.where(split="train"))
    np.testing.assert_array_equal(again(samples.images), trained(samples.images))
    found = judge(study, cohort, samples, "mine", measures=quick)
    assert found.copies.spaces == ("pixel", "copy") and "in the copy detector's space" in copies(found.copies, len(samples))
    assert "near_copy_rate_copy" in [row["metric"] for row in found.rows]
