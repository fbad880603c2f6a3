"""Series of virtual patients, questions and answers, and what the answers are held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cmri_lib.config.contrast import VirtualPatients
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError, NothingToDo, ParameterError, SplitError
from cmri_lib.experiments import contrast, contrast_scores
from cmri_lib.experiments.contrast import TIME, Series
from cmri_lib.experiments.plan import train_planned
from cmri_lib.generators.cross_reconstruction import CrossVAE
from cmri_lib.reporting import contrast_plots, metrics
from cmri_lib.systems.contrast import MANIFOLD, MOTION
from cmri_lib.systems.system import Run

OPTIONS = {"seed": 0, "resamples": 20}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    params = open_study("smoke", "phantom").params
    settings = replace(params.contrast, patients=VirtualPatients(3, 1, 3), contractions=(0.0, 1.0),
                       training=replace(params.contrast.training, steps=4, log_every=2, validate_every=2))
    return Study(tmp_path_factory.mktemp("study"), replace(params, contrast=settings))


@pytest.fixture(scope="module")
def learnt(study: Study) -> Series:
    return contrast.scan_patients(study, "train")


@pytest.fixture(scope="module")
def unseen(study: Study) -> Series:
    return contrast.scan_patients(study, "test")


def test_scans_are_kept_and_no_patient_is_in_two_splits(study: Study, learnt: Series, unseen: Series) -> None:
    again = contrast.scan_patients(study, "train")
    assert np.array_equal(again.slices.images, learnt.slices.images) and np.array_equal(again.t1, learnt.t1, equal_nan=True)
    assert again.slices.table.equals(learnt.slices.table)
    assert len(list(study.work("contrast").glob("series/train-*"))) == 1
    assert not set(learnt.slices.patients) & set(unseen.slices.patients)
    assert len(learnt) == 3 * len(learnt.states) == 3 * 2 * len(study.params.contrast.inversion_times)
    other = contrast.scan_patients(study, "test", contractions=[0.5], times=[1000.0])
    assert other.states.to_numpy().tolist() == [[0.5, 1000.0]] and set(other.slices.patients) == set(unseen.slices.patients)
    with pytest.raises(DataError, match="choose among"):
        contrast.scan_patients(study, "holdout")


def test_other_cohorts_are_left_out(study: Study) -> None:
    contrast.need_virtual_patients(study)
    with pytest.raises(NothingToDo, match="acdc"):
        contrast.need_virtual_patients(replace(study, params=replace(study.params, dataset="acdc")))


def test_patients_stay_together_and_test_patients_out(study: Study, learnt: Series, unseen: Series) -> None:
    condition = MANIFOLD.build(study.params, None, 0).conditioning
    batch = contrast.by_patient(learnt, condition)
    states = len(learnt.states)
    assert batch["image"].shape == (3, states, 1, 32, 32) and batch[MOTION].shape == (3, states)
    np.testing.assert_array_equal(batch["image"][1, 2], learnt.slices.images[states + 2])
    assert batch["log_inversion_time"].min() == pytest.approx(-1) and batch["log_inversion_time"].max() == pytest.approx(1)
    for broken in (learnt.take(np.arange(len(learnt) - 1)), learnt.take(np.arange(len(learnt))[::-1])):
        with pytest.raises(DataError, match="one patient after the other"):
            contrast.by_patient(broken.take(np.r_[1, 0, 2:len(broken)]), condition)
    with pytest.raises(SplitError):
        contrast.by_patient(unseen, condition)


def test_the_system_trains_and_answers_depend_on_source_and_state(study: Study, learnt: Series, unseen: Series) -> None:
    generator = contrast.train_manifold(study, learnt, contrast.scan_patients(study, "validation"))
    weights = study.work("contrast") / "c11-cvae-manifold" / "weights.safetensors"
    written = weights.stat().st_mtime_ns
    contrast.train_manifold(study, learnt, contrast.scan_patients(study, "validation"))
    train_planned(study, Run(replace(MANIFOLD)), unseen.slices)  # as `cmri_lib.train all` does, from scans of its own
    assert weights.stat().st_mtime_ns == written
    one, two = (contrast_scores.ask(unseen, 1, seed) for seed in (0, 1))
    made = contrast_scores.answers(generator, one)
    assert made.images.shape == unseen.slices.images.shape and np.abs(made.images).max() <= 1
    assert np.array_equal(made.images, contrast_scores.answers(generator, one).images)
    assert not np.allclose(made.images, contrast_scores.answers(generator, two).images)
    first, last = made.images[0], made.images[len(unseen.states) - 1]
    assert not np.allclose(first, last)


class Brightness(CrossVAE):
    """The code is the mean intensity, and noise."""

    def infer(self, sources: Sequence[dict[str, Tensor]]) -> Tensor:
        mean = sources[0]["image"].mean((1, 2, 3))
        return torch.stack([mean, torch.randn_like(mean)], dim=1)


def test_what_a_code_holds_is_read_off_it(study: Study, learnt: Series, unseen: Series) -> None:
    generator = MANIFOLD.build(study.params, None, 0)
    plain = Brightness(generator.encoder, generator.decoder, generator.latent, generator.conditioning)

    def lit(series: Series) -> Series:
        """The same patients, every image as bright as its inversion time says."""
        values = series.slices.table["log_inversion_time"].to_numpy(np.float32) / 10
        images = np.ones_like(series.slices.images) * values[:, None, None, None]
        return replace(series, slices=replace(series.slices, images=images))

    found = contrast_scores.code_contents(plain, lit(learnt), lit(unseen))
    assert found["log inversion time of the source"] > 0.95 and found["contraction of the source"] < 0.2


def test_questions_name_sources_of_the_same_patient(unseen: Series) -> None:
    asked = contrast_scores.ask(unseen, 2, 0, images=3)
    states = len(unseen.states)
    assert asked.sources.shape == (3, 2 * len(unseen)) and len(asked.target) == 2 * len(unseen)
    assert (np.diff(np.sort(asked.sources, axis=0), axis=0) > 0).all()  # different states
    assert (~asked.elsewhere).sum() == 2 * 3 * 3  # a patient's own sources, in each draw
    assert (asked.sources[:, :states] == asked.sources[:, :1]).all()
    np.testing.assert_array_equal(asked.unchanged.images[0], unseen.slices.images[asked.sources[0, 0]])
    with pytest.raises(DataError, match="another patient"):
        contrast_scores.Questions(unseen, np.roll(asked.sources[:1, :len(unseen)], 1), unseen)
    with pytest.raises(DataError, match="fewer sources"):
        contrast_scores.ask(unseen, 1, 0, images=states + 1)


def test_the_nearest_training_patient_to_a_training_image_is_that_patient(learnt: Series, unseen: Series) -> None:
    itself = contrast_scores.ask(learnt, 1, 0)
    np.testing.assert_array_equal(contrast_scores.nearest_patient(itself, learnt).images, learnt.slices.images)
    asked = contrast_scores.ask(unseen, 1, 0)
    made = contrast_scores.nearest_patient(asked, learnt)
    of_first = made.images[:len(unseen.states)]
    matches = [(of_first == learnt.slices.where(patient=name).images).all() for name in dict.fromkeys(learnt.slices.patients)]
    assert sum(matches) == 1
    with pytest.raises(DataError, match="no training image"):
        contrast_scores.nearest_patient(asked, learnt.where(**{MOTION: 0.0}))


def test_true_images_are_perfect_answers_and_give_the_true_t1(study: Study, unseen: Series) -> None:
    asked = contrast_scores.ask(unseen, 1, 0)
    rows = {row["metric"]: row for row in contrast_scores.likeness_rows(unseen.slices, asked, OPTIONS)}
    assert rows["ssim_target"]["value"] == pytest.approx(1, abs=1e-4) and rows["mae_target"]["value"] == 0
    assert rows["mae_target"]["floor"] > 0 and rows["ssim_target"]["floor"] < 1
    table = contrast_scores.t1_table(unseen.slices, asked, study.params.contrast.flip)
    assert len(table) == 3 * 2 * 2 and set(table["region"]) == {"Myo", "LV"}
    off = (table["fitted"] / table["true"] - 1).abs().groupby(table["region"])
    assert off.max()["LV"] < 0.03 and off.max()["Myo"] < 0.15 and off.mean()["Myo"] < 0.08, "blood shines into a thin wall"
    of = table.groupby("region")["true"].mean()
    assert of["LV"] > 1.2 * of["Myo"], "blood has the longer T1"
    shifted = [table.assign(fitted=table["true"] - less, pixel_error=less + 10.0) for less in (50.0, 200.0, 0.0)]
    scored = {row["metric"]: row for row in contrast_scores.t1_rows(*shifted, OPTIONS)}
    found = {name: (row["value"], row["floor"], row["ceiling"]) for name, row in scored.items()}
    assert found == {f"t1_{kind}_{region}_ms": pytest.approx(ends) for region in ("Myo", "LV")
                     for kind, ends in (("error", (50, 200, 0)), ("pixel_error", (60, 210, 10)))}
    assert all(metrics.known(name) for name in (*rows, *scored, "cavity_error_cm2"))
    darker = replace(unseen.slices, images=unseen.slices.images - 0.1)
    worse = contrast_scores.likeness_difference(darker, unseen.slices, asked, "mae_target", OPTIONS)
    assert worse.value == pytest.approx(0.1, abs=1e-5)
    with pytest.raises(DataError, match="every inversion time"):
        some = replace(asked, target=unseen.take(np.r_[1, 0, 2:len(unseen)]))
        contrast_scores.t1_table(unseen.slices, some, 35.0)


def test_the_cavity_shrinks_from_ed_to_es_and_figures_are_drawn(study: Study, unseen: Series) -> None:
    cine = unseen.where(**{TIME: max(study.params.contrast.inversion_times)}).slices
    table = contrast_scores.cavity_table({"true images": cine}, [0.0, 0.35])
    wide = table.pivot(index="patient", columns="time", values="true images")
    assert (wide[0.35] < wide[0.0]).all() and table["true images"].corr(table["mask"]) > 0.8
    curves = contrast_scores.cavity_curves(table, ["true images", "mask"], OPTIONS)
    assert len(curves) == 4 and (curves["low"] <= curves["value"]).all()
    dots = contrast_scores.t1_table(unseen.slices, contrast_scores.ask(unseen, 1, 0), 35.0).assign(way="true images")
    recovery = [{"region": "Myo", "what": what, TIME: time, "value": 1.0}
                for what in ("true images", "C11") for time in (100, 900)]
    for figure, panels in ((contrast_plots.cavity_curves(curves), 1), (contrast_plots.t1_agreement(dots), 1),
                           (contrast_plots.recovery_curves(dots.__class__(recovery)), 1)):
        assert len(figure.axes) == panels and figure.axes[0].get_xlabel()


@pytest.mark.parametrize("field,value", [("inversion_times", (1.0, 2.0, 3.0)), ("inversion_times", (1.0, 3.0, 2.0, 4.0)),
                                         ("contractions", (1.0, 0.0))])
def test_states_that_cannot_serve_are_refused(field: str, value: tuple[float, ...]) -> None:
    with pytest.raises(ParameterError, match=field):
        replace(open_study("smoke", "phantom").params.contrast, **{field: value})
