"""The arms of the utility study: what they learn from, that steps are equal, and that no leak goes through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import discs

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError, ParameterError, SplitError
from cmri_lib.experiments import arm_samples, parallel, utility
from cmri_lib.experiments.arm_samples import arm_bank, load_or_draw, most_adherent, one_scan_each
from cmri_lib.experiments.arms import (MAIN, TEACHING, Arm, alone_arm, arm_patients, arm_seeds, compared_systems, few,
                                       generator_run, own_slices, rays, real_arm, target_disease, unique, utility_runs)
from cmri_lib.experiments.banks import kept_bank
from cmri_lib.experiments.ejection_arms import ejection_errors
from cmri_lib.experiments.ablation_runs import LABEL_QUALITY
from cmri_lib.experiments.provenance import patients_seen, refuse_leaks, refuse_seen
from cmri_lib.experiments.utility import SOURCES, arm_rows, draw_samples, source_of_labels, train_arm, train_arms
from cmri_lib.generators.base import draw
from cmri_lib.generators.label_maps import masks_only
from cmri_lib.measures.utility.baselines import BASELINES, baseline, fit, frozen
from cmri_lib.measures.utility.volumetric import arm_difference
from cmri_lib.reporting.results import SCORE_COLUMNS
from cmri_lib.systems.conditional import CONDITIONAL
from cmri_lib.systems.label_maps import CHAINS
from cmri_lib.systems.register import SYSTEMS
from cmri_lib.systems.system import Run, Variant
from cmri_lib.training import TrainSettings
from cmri_lib.training.kept import read_log

SPADE = CONDITIONAL["C4 SPADE cGAN"]
#: Two steps of training, on every patient or some.
QUICK = {"variant": Variant("quick", training={"steps": 2, "batch": 4, "log_every": 1})}


@pytest.fixture(scope="module")
def cohort() -> Slices:
    return concatenate([discs(6, 4, seed=k, split=split) for k, split in enumerate(("train", "validation", "test", "holdout"))])


@pytest.fixture
def study(tmp_path: Path) -> Study:
    params = open_study("smoke", "phantom").params
    quick = replace(params.utility, training=replace(params.utility.training, steps=4, log_every=1, batch=4),
                    seeds=2, fractions=(0.5, 1.0))
    return Study(tmp_path, replace(params, utility=quick))


def with_planted(cohort: Slices, split: str, **renamed: str) -> Variant:
    """A variant that adds a patient of another split to what a generator learns from, as a training patient."""
    stranger = cohort.where(patient=cohort.where(split=split).patients[0]).with_columns(split="train", **renamed)
    return Variant("planted", lambda slices: concatenate([slices.where(split="train"), stranger]))


@pytest.mark.parametrize("split", ["validation", "test", "holdout"])
def test_a_patient_planted_in_a_generator_s_training_set_is_refused(study: Study, cohort: Slices, split: str) -> None:
    images, masks = (Run(system, variant=with_planted(cohort, split)) for system in (SPADE, SYSTEMS["C4 label VAE"]))
    under_another_name = Run(SPADE, variant=with_planted(cohort, split, patient=cohort.where(split="train").patients[0]))
    for runs in ({"images": images}, {"images": Run(SPADE), "masks": masks}, {"images": under_another_name}):
        for use in (draw_samples, train_arm):
            with pytest.raises(SplitError, match=rf"has seen 1 patients whom leaky .*\({split}\)"):
                use(study, Arm("leaky", factor=1.0, **runs), cohort)
    assert not list(study.root.iterdir()), "nothing was trained"


def test_nobody_reads_ejection_fractions_of_patients_that_he_has_met(study: Study, cohort: Slices) -> None:
    test = cohort.where(split="test")
    for arm, asked in ((Arm("leaky", factor=1.0, images=Run(SPADE, variant=with_planted(cohort, "test"))), test),
                       (real_arm(1.0), cohort.where(split="train"))):
        with pytest.raises(SplitError, match="has seen 1 patients|has met 6 of the test patients"):
            ejection_errors(study, arm, cohort, asked, [0])
    assert not list(study.root.iterdir()), "nothing was trained"


def test_a_generator_that_saw_more_patients_than_the_arm_needs_leave(study: Study, cohort: Slices) -> None:
    few, half = arm_patients(study, cohort, 0.25), arm_patients(study, cohort, 0.5)
    assert len(few) == 2 and len(half) == 3 and set(few) < set(half) < set(cohort.where(split="train").patients)
    started = Run(LABEL_QUALITY, patients=few, pretrained=Run(LABEL_QUALITY.pretrained))
    assert patients_seen(started, cohort) == set(cohort.where(split="train").patients), "what it starts from saw them all"
    assert patients_seen(Run(LABEL_QUALITY, patients=few), cohort) == set(few)
    for run in (started, Run(SPADE), Run(SPADE, patients=half),
                Run(SPADE, patients=(*few, cohort.where(split="test").patients[0]))):
        with pytest.raises(SplitError, match="few may not learn from"):
            draw_samples(study, Arm("few", fraction=0.25, images=run, factor=1.0), cohort)
    refuse_seen(Run(SPADE, patients=few), cohort, few, "few")


def test_no_slice_of_others_gets_into_a_training_set(cohort: Slices) -> None:
    train, test = cohort.where(split="train"), cohort.where(split="test")
    allowed = sorted(set(train.patients))[:3]
    own = train.where(patient=allowed)
    refuse_leaks(own, cohort, allowed, "arm")
    refuse_leaks(own.with_columns(patient="synthetic-00001", scan="x"), cohort, allowed, "arm")
    with pytest.raises(SplitError, match=r"slices of \['test'\]"):
        refuse_leaks(concatenate([own, test]), cohort, allowed, "arm")
    with pytest.raises(SplitError, match="slices of 3 patients"):
        refuse_leaks(train, cohort, allowed, "arm")
    with pytest.raises(SplitError, match=r"6 patients.*\(test\)"):
        refuse_leaks(test.with_columns(split="train"), cohort, allowed, "arm")
    with pytest.raises(SplitError, match=r"\(test\) under another name"):
        refuse_leaks(test.with_columns(patient="new", split="train"), cohort, allowed, "arm")


def test_a_student_is_not_scored_on_whom_it_has_met(study: Study, cohort: Slices) -> None:
    student = train_arm(study, real_arm(0.5), cohort)
    assert student.patients == set(arm_patients(study, cohort, 0.5))
    with pytest.raises(SplitError, match="has met 3 of the test patients"):
        arm_rows([student], cohort.where(split=["train", "test"]))
    wider = Arm("wider", fraction=0.5, images=Run(SPADE, **QUICK), factor=0.5, generator_fraction=1.0)
    assert train_arm(study, wider, cohort).patients == set(cohort.where(split="train").patients)


@pytest.mark.parametrize("network", list(BASELINES))
def test_every_arm_takes_the_same_steps_and_has_its_number_of_samples(study: Study, cohort: Slices, network: str,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[tuple[int, int]] = []

    def watched(of, training, settings, folder, start=None):
        learnt.append((len(training), settings.steps))
        model = fit(of, training, settings, folder, start)
        assert len(read_log(folder)) == settings.steps
        return model

    monkeypatch.setattr(utility, "fit", watched)
    run, test = Run(SPADE, patients=arm_patients(study, cohort, 0.5), **QUICK), cohort.where(split="test")
    common = {"fraction": 0.5, "images": run}
    arms = [real_arm(0.5), Arm("samples", real=False, factor=2.0, **common), Arm("both", factor=0.5, **common),
            Arm("before", factor=1.0, pretraining=0.25, **common)]
    students = [train_arm(study, arm, cohort, network=network) for arm in arms]
    real = len(own_slices(study, arms[0], cohort))
    assert learnt == [(real, 4), (2 * real, 4), (real + real // 2, 4), (real, 1), (real, 3)]
    rows = arm_rows([students[2]] * 2, test, resamples=20)
    named = "both" if network == utility.NETWORK else f"both ({network})"
    assert {row["system"] for row in rows} == {named} and {row["family"] for row in rows} == {"GAN"}
    assert not set(SCORE_COLUMNS) - {"dataset", "profile"} - set(rows[0])
    assert np.isfinite(arm_difference([students[2].scores(test)], [students[0].scores(test)], resamples=20).value)


def test_samples_follow_own_masks_and_depend_on_the_seed(study: Study, cohort: Slices) -> None:
    own = arm_patients(study, cohort, 0.5)
    arm = Arm("samples", fraction=0.5, real=False, images=Run(SPADE, patients=own, **QUICK), factor=2.0)
    first, again, other = (draw_samples(study, arm, cohort, seed=seed) for seed in (1, 1, 2))
    assert set(first.patients) == set(own) and set(first.table["split"]) == {"train"} and first.masks.any()
    assert np.array_equal(first.images, again.images) and not np.array_equal(first.images, other.images)
    assert len(first) == 2 * len(own_slices(study, arm, cohort))


def test_samples_without_a_mask_are_labelled_by_the_student_of_the_same_patients(study: Study, cohort: Slices) -> None:
    plain = Run(SYSTEMS["U1 VAE"], patients=arm_patients(study, cohort, 0.5), **QUICK)
    arm, labels = Arm("plain", fraction=0.5, real=False, images=plain, factor=1.0), train_arm(study, real_arm(0.5), cohort)
    made = draw_samples(study, arm, cohort)
    assert np.array_equal(made.masks, labels.segment(made.images))
    with pytest.raises(ParameterError, match="follow no mask"):
        draw_samples(study, replace(arm, candidates=2), cohort)


def test_drawn_masks_are_shared_out_among_the_samples(study: Study, cohort: Slices, monkeypatch: pytest.MonkeyPatch) -> None:
    def passed(generator, conditions, source, ranges, seed, fewest):
        """Of every three masks one passes the screen: mirrored ones, so that they are no patient's."""
        some = conditions.take(np.arange(0, len(conditions), 3))
        names = [f"synthetic-{k:05d}" for k in range(len(some))]
        return masks_only(some.masks[:, ::-1].copy(), some.table.assign(patient=names, scan=names, source=source))

    monkeypatch.setattr(arm_samples, "sample_valid_masks", passed)
    runs = {"images": Run(SPADE, **QUICK), "masks": Run(SYSTEMS["C4 label VAE"], **QUICK)}
    made = draw_samples(study, Arm("new hearts", real=False, factor=1.0, **runs), cohort)
    assert len(made) == len(cohort.where(split="train")) == 3 * len(set(made.patients)) and made.masks.any()
    assert np.array_equal(made.masks[:8], made.masks[8:16]) and not np.array_equal(made.images[:8], made.images[8:16])


def test_of_several_samples_that_which_follows_its_mask_is_kept() -> None:
    slices = discs(3, 2)
    exact = {image.tobytes(): mask for image, mask in zip(slices.images, slices.masks)}
    segment = lambda images: np.stack([exact.get(i.tobytes(), np.zeros((32, 32), np.uint8)) for i in images])  # noqa: E731
    odd = np.arange(len(slices)) % 2 == 1
    banks = [Slices(np.where((odd == turn)[:, None, None, None], slices.images, -slices.images), slices.masks, slices.table)
             for turn in (False, True)]
    assert np.array_equal(most_adherent(banks, segment).images, slices.images)


def ill(cohort: Slices) -> Slices:
    """The cohort with two healthy patients in every three, one DCM; the first training patients are one of each."""
    names = {split: sorted(set(cohort.where(split=split).patients)) for split in ("train", "validation", "test", "holdout")}
    group = {name: "DCM" if k % 2 else "NOR" for some in names.values() for k, name in enumerate(some)}
    return cohort.with_columns(disease=[group[name] for name in cohort.patients])


def test_every_arm_of_the_star_may_see_what_its_generators_have_seen(study: Study, cohort: Slices) -> None:
    star = rays(study, cohort)
    arms, settings = unique(star), study.params.utility
    assert len({arm.id for arm in arms}) == len(arms) and arms[0].images is None
    assert few(study) == 0.5 and [arm.factor for arm in star["number of samples"]] == list(settings.factors)
    assert len(star["number of real patients"]) == 3 * len(settings.fractions) and "disease of the samples" not in star
    for arm in arms:
        for run in arm.runs:
            refuse_seen(run, cohort, arm_patients(study, cohort, arm.generator_fraction or arm.fraction), arm.id)
    assert {run.system.id for run in utility_runs(study, cohort)} == {"C16 MOTFM SPADE", "U10 FM", "C4 label VAE"}
    assert arm_seeds(study) == [study.seed, study.seed + 1]


def test_a_chain_teaches_under_the_masks_that_it_draws(study: Study, cohort: Slices) -> None:
    def named(*names: str) -> Study:
        return replace(study, params=replace(study.params, teaching=replace(study.params.teaching, systems=names)))

    chain, plain = "C4 VAE masks + SPADE cGAN", "U10 FM"
    found = compared_systems(named(chain, plain, MAIN))
    assert [one.id for one in found] == [MAIN, chain, plain], "each once, the main system first"
    main, drawn, pseudo = (alone_arm(study, cohort, one, 1.0, TEACHING) for one in found)
    assert [main.masks, pseudo.masks] == [None, None] and main.images.id == MAIN
    assert (drawn.images.id, drawn.masks.id, drawn.id) == ("C4 SPADE cGAN", "C4 label VAE", f"100 %: {chain} alone")
    assert drawn.images.patients is drawn.masks.patients is None, "trained by other notebooks, on all patients"
    assert drawn.stage == drawn.plain.stage == TEACHING, "what labels its samples lies in the same folder"
    even = "C5 uniform-EF masks + SPADE cGAN"
    assert [one.id for one in compared_systems(named(even))] == [MAIN, even]
    assert [one.id for one in compared_systems(named(even), even_possible=False)] == [MAIN]
    spread = alone_arm(study, cohort, CHAINS[even], 1.0, TEACHING)
    assert (spread.images.id, spread.masks, spread.ejection) == ("C4 SPADE cGAN", None, study.params.masks.ejection)
    with pytest.raises(ParameterError, match="unknown system"):
        compared_systems(named("C99"))


def with_ejection_fractions(cohort: Slices) -> Slices:
    """The same patients, each with one scan of two slices; the first loses most of the cavity in ES, the others a little."""
    masks = cohort.masks.copy()
    for k, patient in enumerate(dict.fromkeys(cohort.patients)):
        for row in np.flatnonzero((cohort.patients == patient) & (cohort.table["phase"] == "ES").to_numpy()):
            lv = np.argwhere(masks[row] == 1)
            gone = lv[: round((0.2 if k else 0.7) * len(lv))]
            masks[row, gone[:, 0], gone[:, 1]] = 2
    place = np.arange(len(cohort)) // 2 % 2
    return replace(cohort, masks=masks).with_columns(index=place, level=np.array(["apical", "basal"])[place])


def test_scans_of_rare_ejection_fractions_are_painted_more_often(study: Study, cohort: Slices) -> None:
    cohort = with_ejection_fractions(cohort)
    even = Arm("even", real=False, factor=2.0, images=Run(SPADE, **QUICK), ejection=(10.0, 75.0))
    plain = replace(even, id="plain", ejection=None)
    own, bank = own_slices(study, even, cohort), load_or_draw(study, even, cohort, study.seed)
    assert len(bank) == 2 * len(own) and set(bank.table["split"]) == {"train"}
    assert {mask.tobytes() for mask in bank.masks} <= {mask.tobytes() for mask in own.masks}
    rare = (bank.table["drawn_from"] == own.patients[0]).mean()
    assert rare > 0.3, "one of six has the high ejection fraction that nearly half of the range is nearest to"
    assert arm_bank(study, even, cohort, 0).folder != arm_bank(study, plain, cohort, 0).folder
    assert source_of_labels(study, even, cohort) == SOURCES[0]
    with pytest.raises(ParameterError, match="ejection"):
        replace(even, masks=Run(SYSTEMS["C4 label VAE"]))
    with pytest.raises(DataError, match="ejection fraction"):
        load_or_draw(study, even, cohort.where(phase="ED"), study.seed)


def test_labels_come_from_patients_a_network_or_a_segmenter(study: Study, cohort: Slices) -> None:
    given = Arm("given", real=False, factor=0.5, images=Run(SPADE, **QUICK))
    assert source_of_labels(study, given, cohort) == SOURCES[0]
    drawn = replace(given, id="drawn", masks=Run(SYSTEMS["C4 label VAE"], **QUICK))
    assert source_of_labels(study, drawn, cohort) == SOURCES[1]
    free = Arm("free", real=False, factor=0.5, images=Run(SYSTEMS["U1 VAE"], **QUICK))
    assert source_of_labels(study, free, cohort) == SOURCES[2]


def test_generators_of_fewer_patients_lie_apart_from_what_they_would_overwrite(study: Study, cohort: Slices) -> None:
    assert generator_run(study, cohort, SYSTEMS["C16 MOTFM SPADE"], 1.0) == Run(SYSTEMS["C16 MOTFM SPADE"])
    for name in ("C16 MOTFM SPADE", "C10 SPADE LDM"):
        run = generator_run(study, cohort, SYSTEMS[name], 0.5)
        assert run.stage == run.start.stage == "utility" and run.patients == run.start.patients
        assert run.system.first_stage is None or run.system.first_stage.stage == "utility"
        assert patients_seen(run, cohort) == set(arm_patients(study, cohort, 0.5))


def test_the_target_is_the_rarest_disease_of_which_there_are_test_patients(study: Study, cohort: Slices) -> None:
    assert target_disease(study, cohort, 1.0) is None, "everybody is healthy"
    groups = ill(cohort)
    assert target_disease(study, groups, 1.0) == "DCM"
    untested = groups.with_columns(disease=groups.table["disease"].mask(groups.table["split"] == "test", "NOR"))
    assert target_disease(study, untested, 1.0) is None
    assert [arm.disease for arm in rays(study, groups)["disease of the samples"]] == [None, "DCM", "DCM"]


def test_samples_of_a_disease_follow_masks_of_it_or_moved_to_it(study: Study, cohort: Slices,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    groups, common = ill(cohort), {"real": False, "factor": 0.5, "images": Run(SPADE, **QUICK)}
    made = draw_samples(study, Arm("of DCM", disease="DCM", **common), groups)
    assert set(made.table["disease"]) == {"DCM"} and len(made) == len(cohort.where(split="train")) // 2
    own = {mask.tobytes() for mask in groups.where(split="train", disease="DCM").masks}
    assert {mask.tobytes() for mask in made.masks} <= own
    vae = Run(SYSTEMS["C4 label VAE"], **QUICK)
    moved = draw_samples(study, Arm("moved", disease="DCM", masks=vae, **common), groups)
    healthy = set(groups.where(split="train", disease="NOR").patients)
    assert set(moved.table["disease"]) == {"DCM"} and set(moved.patients) <= healthy
    with pytest.raises(DataError, match="no patient of the group HCM"):
        draw_samples(study, Arm("of HCM", disease="HCM", **common), groups)
    with pytest.raises(SplitError, match="has seen 1 patients whom leaky"):
        planted = Run(SYSTEMS["C4 label VAE"], variant=with_planted(groups, "test"))
        draw_samples(study, Arm("leaky", disease="DCM", masks=planted, **common), groups)


def test_samples_are_drawn_once_and_shared_by_arms_of_one_generator(study: Study, cohort: Slices,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(arm_samples, "draw", lambda g, c, *rest, **more: drawn.append(len(c)) or draw(g, c, *rest, **more))
    own = arm_patients(study, cohort, 0.5)
    arm = Arm("both", fraction=0.5, images=Run(SPADE, patients=own, **QUICK), factor=2.0)
    whole = draw_samples(study, arm, cohort, seed=1)
    part = draw_samples(study, replace(arm, id="less", factor=0.5, real=False), cohort, seed=1)
    assert drawn == [len(whole)] and np.array_equal(part.images, whole.images[:len(part)])
    more = draw_samples(study, replace(arm, factor=3.0), cohort, seed=1)
    assert np.allclose(more.images[:len(whole)], whole.images, atol=1e-5), "but for rounding in batches of other sizes"
    draw_samples(study, arm, cohort, seed=2)
    other = replace(arm, images=replace(arm.images,
                                        variant=Variant("quick", training={**QUICK["variant"].training, "steps": 3})))
    assert arm_bank(study, other, cohort, 1).folder == arm_bank(study, arm, cohort, 1).folder
    assert not np.array_equal(load_or_draw(study, other, cohort, 1).images, whole.images), "other weights, other samples"
    assert drawn == [len(whole), len(whole) * 3 // 2, len(whole), len(whole)]


def test_samples_of_an_arm_are_drawn_again_by_another_solver(study: Study, cohort: Slices,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(arm_samples, "draw", lambda g, c, *rest, **more: drawn.append(len(c)) or draw(g, c, *rest, **more))
    flow_run = Run(SYSTEMS["U10 FM + mask"], patients=arm_patients(study, cohort, 0.5), **QUICK)
    arm = Arm("flow", fraction=0.5, images=flow_run, factor=1.0)
    first, again = (load_or_draw(study, arm, cohort, 1).images for _ in range(2))
    flow = replace(study.params.flow, objective=replace(study.params.flow.objective, solver="euler"))
    other = load_or_draw(Study(study.root, replace(study.params, flow=flow)), arm, cohort, 1).images
    assert len(drawn) == 2 and np.array_equal(first, again) and not np.array_equal(other, first)


def test_a_bank_without_its_key_is_drawn_again(tmp_path: Path) -> None:
    some, asked = discs(4, 4), []

    def make(count: int) -> Slices:
        asked.append(count)
        return some.take(np.arange(count))

    for key, count, calls in (("a", 6, 1), ("a", 6, 1), ("a", 4, 1), ("a", 9, 2), ("b", 4, 3), ("b", 5, 4)):
        assert len(kept_bank(tmp_path, key, count, make)) == count and len(asked) == calls
    (tmp_path / "key.txt").unlink()
    kept_bank(tmp_path, "b", 5, make)
    assert len(asked) == 5


def test_all_arms_at_once_are_those_trained_one_by_one(study: Study, cohort: Slices, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[tuple[str, int]] = []

    def here(some: list, workers: int, **_: object) -> list:
        """In the place of joblib, whose processes take longer to start than these jobs to run."""
        return [(jobs.append((given[0].__name__, workers)), job(*given, **more)) for job, given, more in some]

    monkeypatch.setattr(parallel, "results", here)
    monkeypatch.setattr(utility, "train_all", lambda *_: None)
    run = Run(SPADE, patients=arm_patients(study, cohort, 0.5), **QUICK)
    arms = [Arm("both", fraction=0.5, images=run, factor=1.0), Arm("alone", fraction=0.5, real=False, images=run, factor=1.0)]
    two = Study(study.root / "two", replace(study.params, workers=2))
    students = train_arms(two, arms, cohort, seeds=[1])
    assert list(students) == ["both", "alone"] and [s.seed for s in students["both"]] == [1]
    alone = [("train_arm", 1), ("load_or_draw", 1)]
    assert jobs == [*alone, ("train_arm", 2), ("train_arm", 2)], "one student and one bank alone need no second process"
    single, test = train_arm(study, arms[0], cohort, seed=1), cohort.where(split="test")
    assert students["both"][0].scores(test).equals(single.scores(test))
    with pytest.raises(SplitError, match="whom leaky may not learn from"):
        train_arms(two, [Arm("leaky", factor=1.0, images=Run(SPADE, variant=with_planted(cohort, "test")))], cohort)


def test_an_arm_in_which_nothing_is_labelled_is_left_out(study: Study, cohort: Slices, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(utility, "pseudo_label", lambda segment, samples: samples)
    plain = Run(SYSTEMS["U1 VAE"], patients=arm_patients(study, cohort, 0.5), **QUICK)
    common = {"fraction": 0.5, "images": plain, "factor": 1.0}
    found = train_arms(study, [Arm("alone", real=False, **common), Arm("both", **common)], cohort, seeds=[1, 2])
    assert [[s.seed for s in some] for some in found.values()] == [[1, 2]] and list(found) == ["both"]
    assert "left out, alone: every mask is empty" in capsys.readouterr().out


def test_rows_name_the_baseline_and_the_reference_is_the_ceiling(study: Study, cohort: Slices) -> None:
    test = cohort.where(split="test")
    plain = [train_arm(study, real_arm(0.5), cohort, network=name) for name in BASELINES]
    assert [student.id for student in plain] == ["50 %: real", "50 %: real (residual U-Net)"]
    rows = {row["metric"]: row for row in arm_rows([plain[1]], test, [plain[0].scores(test)], resamples=20)}
    best = plain[0].scores(test).query("structure == 'foreground'")["dice"].mean()
    assert rows["downstream_dice"]["ceiling"] == pytest.approx(best) and rows["downstream_dice"]["floor"] == 0
    assert {row["system"] for row in rows.values()} == {"50 %: real (residual U-Net)"}
    assert "downstream_dice" not in {row["metric"] for row in arm_rows(plain[:1], test, resamples=20)}


def test_patients_with_several_scans_count_once() -> None:
    some = discs(3, 2)
    again = some.with_columns(scan=[f"{scan}-again" for scan in some.table["scan"]])
    assert len(one_scan_each(concatenate([again, some]))) == len(some)
    assert set(one_scan_each(concatenate([again, some])).table["scan"]) == set(some.table["scan"])


@pytest.mark.parametrize(("field", "fields"), [
    ("real", {"real": False}), ("factor", {"factor": 1.0}), ("factor", {"images": Run(SPADE)}), ("fraction", {"fraction": 0.0}),
    ("masks", {"masks": Run(SPADE)}), ("pretraining", {"pretraining": 0.5}), ("candidates", {"candidates": 2}),
    ("disease", {"disease": "DCM"}), ("disease", {"disease": "NOR", "images": Run(SPADE), "masks": Run(SPADE), "factor": 1.0}),
    ("generator_fraction", {"fraction": 0.5, "images": Run(SPADE), "factor": 1.0, "generator_fraction": 0.25})])
def test_arms_that_contradict_themselves_are_refused(field: str, fields: dict) -> None:
    with pytest.raises(ParameterError) as caught:
        Arm("odd", **fields)
    assert caught.value.field == field


@pytest.mark.parametrize("network", list(BASELINES))
def test_a_baseline_learns(network: str, tmp_path: Path) -> None:
    settings = TrainSettings(steps=60, batch=8, learning_rate=5e-3, log_every=20, warmup=5, ema=0.9)
    model = fit(baseline(network), discs(8, 4), settings, tmp_path / "a")
    unseen = discs(6, 4, seed=5, split="test")
    for mirror in (False, True):
        found = frozen(model, 0, mirror=mirror)(unseen.images)
        assert found.shape == unseen.masks.shape and found.dtype == np.uint8
    share = [(frozen(model, 0)(unseen.images) == k)[unseen.masks == k].mean() for k in (0, 1, 2)]
    assert min(share) > 0.5, "sixty steps tell a disc from its ring"
    with pytest.raises(DataError, match="label"):
        fit(baseline(network), Slices(unseen.images, 0 * unseen.masks, unseen.table), settings, tmp_path / "b")
    with pytest.raises(ParameterError, match="U-Net"):
        baseline("nnU-Net")
