"""Who is public, private and a canary; what is trained at which ε, and that a private training is one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import discs
from systems.test_conditional import quick

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.experiments import private_training as private
from cmri_lib.experiments.banks import draw_bank, sampling_conditions
from cmri_lib.experiments.private_audit import PrivateAudit
from cmri_lib.experiments.private_utility import PrivateStudents
from cmri_lib.experiments.provenance import patients_seen
from cmri_lib.experiments.training import training_folder, training_folders, training_log
from cmri_lib.systems.register import system
from cmri_lib.training import TrainSettings

SLICES = concatenate([discs(16, 3), discs(2, 2, seed=3, split="validation"), discs(3, 2, seed=5, split="test"),
                      discs(6, 3, seed=4, split="holdout")]).with_columns(vendor="GE", disease="NOR")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    found = quick(open_study("smoke", "phantom"), tmp_path)
    section = found.params.differential_privacy
    short = replace(section, systems=("U10 FM",), training=replace(section.training, steps=3, patients=4), arms=())
    return replace(found, params=replace(found.params, differential_privacy=short))


def test_everybody_has_one_role_and_the_coins_change_no_setting(study: Study) -> None:
    who = private.roles(study, SLICES)
    everyone = set(SLICES.where(split="train").patients)
    assert {*who.public, *who.private} == everyone and not set(who.public) & set(who.private)
    assert len(who.public) == 4 and len(who.canaries) == 10 and set(who.canaries) < set(who.private)
    assert set(who.private) - set(who.canaries) <= set(who.included) <= set(who.private)
    assert set(who.left_out) | set(who.included) == set(who.private) and who.delta == 1 / 120 and who.expected == 7
    settings = study.params.differential_privacy
    other = replace(who, included=who.private)
    assert private.mechanism(settings, who, 10.0) == private.mechanism(settings, other, 10.0)
    assert private.roles(study, SLICES.where(patient=list(who.public))) == private.Roles((), (), (), ())
    assert private.differential_privacy_runs(study, SLICES.where(patient=list(who.public))) == []


def test_coins_are_fair(study: Study) -> None:
    heads = [len(private.roles(_seeded(study, seed), SLICES).included) - private.ALWAYS for seed in range(200)]
    assert np.mean(heads) == pytest.approx(5, abs=0.35) and np.var(heads) == pytest.approx(2.5, abs=0.9)


def _seeded(study: Study, seed: int) -> Study:
    return replace(study, params=replace(study.params, seed=seed))


def test_the_step_is_what_the_parameters_say(study: Study) -> None:
    who, settings = private.roles(study, SLICES), study.params.differential_privacy
    step = private.mechanism(settings, who, math.inf)
    assert step.noise == 0 and step.rate == pytest.approx(4 / 7) and step.patients == pytest.approx(4)
    crowded = replace(settings, training=replace(settings.training, patients=100))
    assert private.mechanism(crowded, who, math.inf).rate == 1 and private.mechanism(crowded, who, math.inf).patients == 7
    run = private.private_run(study, SLICES, "U10 FM", 10.0)
    spent = private.accounted(study, SLICES, run)
    assert spent["PRV"] <= spent["RDP"] <= 10 and run.settings(study.params, 3).seed == 3
    assert spent["RDP"] == pytest.approx(10, rel=0.02), "less noise would do"
    assert private.accounted(study, SLICES, private.private_run(study, SLICES, "U10 FM", math.inf))["RDP"] == math.inf


def test_runs_and_arms_have_names_and_starts_of_their_own(study: Study) -> None:
    section = replace(study.params.differential_privacy, systems=("U10 FM", "U6 DDPM"), arms=("from nothing", "last layers"))
    study = replace(study, params=replace(study.params, differential_privacy=section))
    runs = private.differential_privacy_runs(study, SLICES)
    assert len(runs) == len({run.folder for run in runs}) == 2 + 2 * 2 + 2 + 2
    assert {run.stage for run in runs} == {private.STAGE}
    starts = {run.id: run.start and run.start.id for run in runs if run.id.startswith("private U10 FM")}
    assert sum(start is None for start in starts.values()) == 1
    for run in runs:
        left_out = set(private.roles(study, SLICES).canaries) - set(run.patients)
        assert not patients_seen(run, SLICES) & left_out


def test_c18_plays_its_private_game_without_momentum(study: Study) -> None:
    gan, flow = (private.private_run(study, SLICES, name, 10.0).settings(study.params, 1)
                 for name in ("C18 RDP-CGAN", "U10 FM"))
    section = study.params.differential_privacy
    assert (gan.beta1, gan.beta2) == (section.gan.training.beta1, section.gan.training.beta2) and gan.beta1 < flow.beta1
    assert gan.learning_rate == section.gan.private_learning_rate and (gan.steps, gan.batch) == (flow.steps, flow.batch)


def test_no_augmentation_may_adapt_to_private_patients(study: Study) -> None:
    dp = study.params.differential_privacy
    for augment in ("none", "diffaug", "ada"):
        gan = replace(dp.gan, objective=replace(dp.gan.objective, augment=augment))
        params = replace(study.params, differential_privacy=replace(dp, gan=gan))
        generator = system("C18 RDP-CGAN").build(params, Vocabulary({}), 0)
        if augment != "ada":
            private.refuse_adapting(generator)
            continue
        with pytest.raises(ParameterError, match="(?s)adapts.*augment|augment.*adapts"):
            private.refuse_adapting(generator)


def test_an_autoencoder_is_that_of_the_public_patients(study: Study) -> None:
    """So that all that the plan says a private training writes is what it writes, and can be published."""
    public, strict = private.public_run(study, SLICES, "C18 RDP-CGAN"), private.private_run(study, SLICES, "C18 RDP-CGAN", 10.0)
    assert len(training_folders(study, public)) == 2 and [*training_folders(study, strict)] == [training_folder(study, strict)]
    private.train_or_load_any(study, strict, SLICES)
    written = {file.parent for file in study.work(private.STAGE).rglob("weights.safetensors")}
    assert written == {*training_folders(study, public), *training_folders(study, strict)}


def test_no_private_training_from_nothing_has_an_autoencoder_that_nobody_trained(study: Study) -> None:
    section = replace(study.params.differential_privacy, systems=("U7 LDM-KL", "U10 FM"), arms=("from nothing",))
    with pytest.raises(ParameterError, match="U7 LDM-KL, whose autoencoder") as refused:
        private.differential_privacy_runs(replace(study, params=replace(study.params, differential_privacy=section)), SLICES)
    assert refused.value.field == "differential_privacy.arms"


def test_a_private_training_with_another_seed_has_other_initial_weights(study: Study,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(private, "train_privately",
                        lambda generator, *rest, **more: found.append(next(generator.parameters()).detach().clone()))
    run = replace(private.private_run(study, SLICES, "U10 FM", 10.0, "from nothing"), seed=study.seed)
    for one in (run, replace(run, seed=None), replace(run, seed=study.seed + 1)):
        private.train_or_load_any(study, one, SLICES)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_another_toss_changes_who_is_learnt_from_and_nothing_else(study: Study) -> None:
    first, second = (private.roles(study, SLICES, toss) for toss in (0, 1))
    assert first.included != second.included and replace(first, included=second.included) == second
    tossed = private.tossed_runs(study, SLICES, "U10 FM")
    assert list(tossed) == [10.0, math.inf] and all(len(runs) == 2 for runs in tossed.values())
    assert [runs[0] for runs in tossed.values()] == private.private_runs(study, SLICES, "U10 FM")
    assert tossed[10.0][1].patients == second.included and tossed[10.0][1].id.endswith("epsilon = 10, toss 2")
    assert [len(runs) for runs in private.tossed_runs(study, SLICES, "U6 DDPM").values()] == [1, 1]


def test_what_is_easy_to_draw_is_no_leak_over_tosses(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that belong to patients and not to trainings average to one half over tosses; answers to one."""
    who = private.roles(study, SLICES).canaries
    audit, everyone = PrivateAudit(study, SLICES), np.array(sorted(who))
    tosses = [np.random.default_rng(seed).permutation(len(who)) < len(who) / 2 for seed in range(60)]
    easy = pd.Series(np.random.default_rng(0).normal(size=len(who)), everyone)
    found = iter([(easy, toss) for toss in tosses] + [(pd.Series(toss.astype(float), everyone), toss) for toss in tosses])
    monkeypatch.setattr(audit, "_canary_scores", lambda run: next(found))
    chance, known = audit.over_tosses(tosses), audit.over_tosses(tosses)
    assert chance.low < 0.5 < chance.high and abs(chance.value - 0.5) < 0.08 and chance.seeds == 60
    assert known.value == 1 and known.low == pytest.approx(1) and known.high == pytest.approx(1)


def test_no_toss_with_one_side_alone_is_scored(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = PrivateAudit(study, SLICES)
    monkeypatch.setattr(audit, "_canary_scores", lambda run: (pd.Series([1.0, 2.0], ["a", "b"]), np.array([True, True])))
    assert math.isnan(audit.over_tosses([None]).value)


def test_private_trainings_start_from_public_weights_and_are_audited(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = PrivateAudit(study, SLICES)
    runs = private.private_runs(study, SLICES, "U10 FM")
    assert [run.variant.epsilon for run in runs] == [10.0, math.inf]
    for run in runs:
        audit.target(run)
    assert training_log(study, runs[0])["loss_model"].isna().all()
    assert (training_folder(study, runs[0].start) / "weights.safetensors").exists()
    noisy, clipped = (audit.target(run).generator.state_dict() for run in runs)
    assert any(not torch.equal(noisy[name], clipped[name]) for name in noisy)

    found = {row["metric"]: row for row in [*audit.canary_rows(runs[0]), *audit.holdout_rows(runs[0])]}
    assert found["epsilon_lower"]["value"] <= found["epsilon_prv"]["value"] <= found["epsilon_rdp"]["value"] <= 10
    assert found["epsilon_rdp"]["value"] == pytest.approx(10, rel=0.02)
    assert 0 <= found["attack_auc_loss"]["value"] <= 1 and found["attack_auc_loss"]["n"] == min(
        len(set(SLICES.where(split="holdout").patients)), len(audit.roles.included))
    assert "epsilon_rdp" not in {row["metric"] for row in audit.canary_rows(runs[1])}, "without noise there is no bound"
    controls = audit.control_rows(runs[0])
    assert [row["metric"] for row in controls] == ["attack_auc_loss", "attack_auc_blind"]

    monkeypatch.setattr("cmri_lib.training.loop.Training.go", lambda self: pytest.fail("trained again"))
    again = private.train_or_load_any(study, runs[0], SLICES).state_dict()
    assert all(torch.equal(noisy[name], value) for name, value in again.items())


def test_canaries_that_were_memorised_are_found(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attack that knows the answers proves what so many canaries can prove; one that knows nothing, nothing."""
    crowd = concatenate([SLICES, discs(80, 1, seed=7).with_columns(vendor="GE", disease="NOR")])  # ten canaries prove nothing
    audit, run = PrivateAudit(study, crowd), private.private_run(study, crowd, "U10 FM", math.inf)
    monkeypatch.setattr(audit, "target", lambda run: None)

    class Told:
        def __init__(self, *_: object):
            pass

        def scores(self, target: object, slices: Slices) -> pd.DataFrame:
            return pd.DataFrame({"all times": [known[patient] for patient in slices.patients]})

    monkeypatch.setattr("cmri_lib.experiments.private_audit.Calibrated", Told)
    known = {patient: float(patient in audit.roles.included) for patient in audit.roles.canaries}
    found = audit.canaries(run)
    assert found.right == found.guesses == found.canaries // 2 and found.auc.value == 1
    assert found.lower == found.most > 1 and found.sure < found.lower

    audit.options["resamples"], aucs, proved = 100, [], 0  # the 20 of the smoke profile cover too little
    for seed in range(40):
        known = dict(zip(known, np.random.default_rng(seed).normal(size=len(known))))
        found = audit._audited(run)
        aucs.append(found.auc)
        proved += found.lower > 0
    assert proved <= 4 and np.mean([auc.value for auc in aucs]) == pytest.approx(0.5, abs=0.1)
    assert np.mean([auc.low <= 0.5 <= auc.high for auc in aucs]) >= 0.85


def test_a_private_step_needs_the_memory_of_one_patients_images(study: Study) -> None:
    """Whatever the number of patients in a step: their gradients are taken one after another."""
    public, strict = private.public_run(study, SLICES, "U10 FM"), private.private_run(study, SLICES, "U10 FM", 10.0)
    batch = public.settings(study.params, study.seed).batch
    share = study.params.differential_privacy.training.slices / batch
    found, whole = (private.step_memory(study, run, SLICES) for run in (strict, public))
    assert found == pytest.approx(share * whole, rel=0.05)


def test_the_arm_of_the_last_layers_trains_these_alone(study: Study) -> None:
    generator = private.public_run(study, SLICES, "U10 FM").system.build(study.params, Vocabulary.of(SLICES), 0)
    private.freeze_all_but_last(generator)
    names = {name for name, p in generator.named_parameters() if p.requires_grad}
    last = len(study.params.flow.network.channels) - 1
    assert names and all(n.startswith(("network.unet.out.", f"network.unet.up_blocks.{last}.")) for n in names)
    assert any(n.startswith("network.unet.out.") for n in names) and any(f"up_blocks.{last}." in n for n in names)
    with pytest.raises(DataError, match="no U-Net"):
        private.freeze_all_but_last(system("U1 VAE").build(study.params, Vocabulary.of(SLICES), 0))


def test_samples_are_labelled_and_taught_without_a_look_at_private_patients(study: Study) -> None:
    quickly = replace(study.params.utility, training=TrainSettings(steps=2, batch=4))
    study = replace(study, params=replace(study.params, utility=quickly))
    school, who = PrivateStudents(study, SLICES), private.roles(study, SLICES)
    assert set(school.public.patients) == set(who.public)
    assert set(school.real.patients) == set(who.private) and set(school.test.table["split"]) == {"test"}
    run = private.public_run(study, SLICES, "U10 FM")
    generator = private.train_or_load_any(study, run, SLICES)
    school.labeller = lambda images: np.ones((len(images), *images.shape[2:]), np.uint8)  # sees a heart everywhere
    samples = draw_bank(study, run, generator, sampling_conditions(SLICES, 4, 0))
    assert set(samples.table["split"]) == {"test"}  # as notebook 12 draws them
    rows = school.rows(run, school.of(run, samples))
    assert {row["metric"] for row in rows} >= {"downstream_dice"} and {row["system"] for row in rows} == {run.id}
    assert (training_folder(study, run).parent / "students" / "public-u10-fm-4-patients" / "weights.safetensors").exists()
    school.labeller = lambda images: np.zeros((len(images), *images.shape[2:]), np.uint8)
    assert school.of(run, samples) is None
    with pytest.raises(DataError, match="follow masks"):
        school.of(run, SLICES.where(split="test"))
