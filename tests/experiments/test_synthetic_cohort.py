"""Synthetic patients to take away: read back as any cohort, under training masks alone, or refused with a remedy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from systems.test_conditional import quick
from torch import nn

from cmri_lib import synthesise as command
from cmri_lib.cohort.cardiac_function import case_volumes, phenotype_table
from cmri_lib.cohort.preprocessing.pipeline import PreprocessSettings, preprocess
from cmri_lib.cohort.readers.cases import read_dataset
from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError, ParameterError, SplitError
from cmri_lib.experiments.synthetic_cohort import BLANK, Request, draw_patient, repeated, synthesise, whole_stacks
from cmri_lib.experiments.training import train_or_load
from cmri_lib.generators.base import Generator
from cmri_lib.networks.conditioning.embeddings import CategoricalEmbedding, CompositeConditioning
from cmri_lib.networks.conditioning.label_map import LabelMap
from cmri_lib.reporting.results import SCORE_COLUMNS
from cmri_lib.systems import register
from cmri_lib.systems.system import Run, System
from cmri_lib.training import TrainSettings
from cmri_lib.training.batches import mixed_seed

SIZE, PIXEL, SLICE_MM = 32, 6.0, 9.0
#: Slices with a label at ED and at ES, as stored indices: at ES the base has moved out of the most basal one.
LABELLED = {"ED": range(1, 7), "ES": range(2, 7)}


def hearts(split: str = "train", patients: int = 4, start: int = 0) -> Slices:
    """Scans of round hearts that shrink from base to apex and from ED to ES; vendors and diseases in turn."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    masks, rows = [], []
    for p in range(start, start + patients):
        for phase, indices in LABELLED.items():
            for z in indices:
                lv = (4.5 if phase == "ED" else 3.2) + 0.1 * p - 0.3 * z
                mask = np.zeros((SIZE, SIZE), np.uint8)
                mask[np.hypot(y, x + 8) < 4] = 3
                mask[np.hypot(y, x) < lv + 2] = 2
                mask[np.hypot(y, x) < lv] = 1
                masks.append(mask)
                rows.append({"patient": f"{split}-{p}", "scan": f"{split}-{p}", "split": split, "dataset": "hearts",
                             "vendor": ("Siemens", "Canon")[p % 2], "centre": "1", "disease": ("NOR", "HCM")[p // 2 % 2],
                             "phase": phase, "level": "mid", "height": 0.5, "index": z, "spacing": PIXEL,
                             "slice_mm": SLICE_MM, "source": "real", "age": 50.0 + p, "bmi": 25.0})
    masks = np.stack(masks)
    images = np.array([-0.9, 0.8, -0.3, 0.7], np.float32)[masks][:, None]
    return Slices(images, masks, pd.DataFrame(rows))


class Painter(Generator):
    """Paints each label with its brightness, a shade per vendor, and the noise on top: every number can be foretold."""

    nfe = 1

    def __init__(self, vocabulary: Vocabulary):
        super().__init__()
        self.conditioning = CompositeConditioning(LabelMap(), CategoricalEmbedding(vocabulary.choose("vendor", "disease")))
        self.shades = nn.Parameter(torch.tensor([-0.8, 0.7, -0.2, 0.7]))

    def loss(self, batch, group):
        return 0.0 * self.shades.sum()

    def sample(self, noise, batch, **choices):
        shade = self.shades[batch["mask"].long()][:, None] - 0.05 * batch["vendor"][:, None, None, None]
        return shade + 0.02 * noise


PAINTER = System("painter", "paint", "mask (concat) + vendor + disease", "conditional", lambda p: TrainSettings(1),
                 lambda p, vocabulary: Painter(vocabulary))


@pytest.fixture(scope="module")
def cohort() -> Slices:
    parts = [hearts(), hearts("validation", 1, 4), hearts("test", 2, 5)]
    return Slices(np.concatenate([p.images for p in parts]), np.concatenate([p.masks for p in parts]),
                  pd.concat([p.table for p in parts]))


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    monkeypatch.setitem(register.SYSTEMS, "painter", PAINTER)
    return quick(open_study("smoke", "phantom"), tmp_path / "study")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_is_read_back_is_what_was_drawn_under_the_masks(study: Study, cohort: Slices, tmp_path) -> None:
    request = Request("painter", patients=6, vendor="D", seed=3)
    made = synthesise(study, request, cohort, tmp_path / "out")
    assert [case.patient for case in made.cases] == [f"S{k:03d}" for k in range(1, 7)]
    assert not made.report["findings"].any() and (made.report["status"] == "read").all()
    again = read_dataset(tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "patients.csv", keep_default_na=False)
    generator = train_or_load(study, Run(PAINTER), cohort)
    chosen = repeated(whole_stacks(cohort.where(split="train")), request)
    for number, (case, stack) in enumerate(zip(again.cases, chosen, strict=True)):
        drawn = draw_patient(generator, stack.slices.with_columns(vendor="Canon"), "painter", mixed_seed(3, number))
        for phase in ("ED", "ES"):
            volume = case.volumes[phase]
            rows = (drawn.table["phase"] == phase).to_numpy()
            place = drawn.table.loc[rows, "index"].to_numpy() - 1
            assert np.array_equal(volume.image[place], drawn.images[rows, 0]) and volume.image.dtype == np.float32
            assert np.array_equal(volume.mask[place], stack.slices.masks[rows])
            empty = np.setdiff1d(np.arange(6), place)
            assert (volume.image[empty] == BLANK).all() and not volume.mask[empty].any() and len(empty) == (phase == "ES")
        assert case.spacing == (SLICE_MM, PIXEL, PIXEL) and case.vendor == "Canon" and case.centre == "synthetic"
        assert np.allclose(case.affine @ [15.5, 15.5, 0, 1], [0, 0, 0, 1])
        # The same formula on the stored scan and on the slices that were its conditions.
        expected = phenotype_table(stack.slices).iloc[0]
        assert case_volumes(case)["ED"]["LV"] == pytest.approx(expected["lvedv"])
    assert list(table["masks"]) == [g for g in pd.factorize(np.repeat([s.patient for s in chosen], 2))[0] + 1]
    assert (table["age"] == "").all() and (table.loc[table["phase"] == "ES", "blank_slices"] == 1).all()


def test_the_readers_preprocessing_gives_the_masks_again(study: Study, cohort: Slices, tmp_path) -> None:
    made = synthesise(study, Request("painter", 2), cohort, tmp_path / "out")
    settings = PreprocessSettings(size=SIZE, field_of_view=SIZE * PIXEL, crop="centre", clip=None)
    slices = preprocess(made.cases, settings, split=dict.fromkeys(["S001", "S002"], "train"))
    chosen = repeated(whole_stacks(cohort.where(split="train")), Request("painter", 2))
    assert np.array_equal(slices.masks, np.concatenate([stack.slices.masks for stack in chosen]))
    assert list(slices.table["phase"]) == [phase for s in chosen for phase in s.slices.table["phase"]]
    # A detector is never exact to a fraction of a pixel. What it moves is moved by whole pixels: no mask changes its form.
    detector = SimpleNamespace(patients=(), centre=lambda case: (SIZE / 2 - 0.5 + 1.3, SIZE / 2 - 0.5 - 0.6))
    found = preprocess(made.cases, replace(settings, crop="detector"), split=dict.fromkeys(["S001", "S002"], "train"),
                       detector=detector)
    assert np.array_equal(found.masks, np.roll(slices.masks, (-1, 1), axis=(1, 2)))
    assert np.array_equal(found.images[..., :-1, 1:], slices.images[..., 1:, :-1])


def test_one_request_has_one_outcome_and_more_patients_continue_fewer(study: Study, cohort: Slices, tmp_path) -> None:
    for name, patients, seed in (("a", 3, 0), ("b", 3, 0), ("more", 5, 0), ("other", 3, 1)):
        synthesise(study, Request("painter", patients, seed=seed), cohort, tmp_path / name)
    one, same, more, other = (files(tmp_path / name) for name in ("a", "b", "more", "other"))
    assert one == same
    volumes = {name for name in one if name.endswith(".nii.gz")}
    assert len(volumes) == 12 and all(one[name] == more[name] for name in volumes)
    images = [name for name in volumes if name.startswith("imagesTr")]
    assert images and all(one[name] != other[name] for name in images)


def test_one_noise_goes_through_all_slices_of_a_patient_and_through_no_other(cohort: Slices) -> None:
    painter, stack = Painter(Vocabulary.of(cohort)), cohort.where(patient="train-0")
    first, second = (draw_patient(painter, stack, "painter", seed) for seed in (1, 2))
    # Every image is its label's shade and the noise: differences of two patients under the same masks are noise alone.
    difference = (first.images - second.images)[:, 0] / (0.02 * np.sqrt(2))
    assert np.ptp(difference, axis=0).max() < 1e-4, "another noise in another slice"
    assert abs(difference[0].mean()) < 0.1 and abs(difference[0].std() - 1) < 0.1


def test_vendor_and_disease_are_those_asked_for(study: Study, cohort: Slices, tmp_path) -> None:
    made = synthesise(study, Request("painter", 5, vendor="A", disease="HCM"), cohort, tmp_path / "asked")
    assert set(made.table["vendor"]) == {"Siemens"} and set(made.table["disease"]) == {"HCM"}
    names = json.loads((tmp_path / "asked" / "card.json").read_text())["masks"]["names"]
    assert names == ["train-2", "train-3"], "masks of HCM come from patients with HCM, of whatever vendor"
    free = synthesise(study, Request("painter", 8), cohort, tmp_path / "free")
    assert set(free.table["vendor"]) == {"Siemens", "Canon"} and set(free.table["disease"]) == {"NOR", "HCM"}


@pytest.mark.parametrize(("request_", "field", "says"), [
    (dict(system="U10 FM", patients=1), "system", "no labels"),
    (dict(system="C10 label diffusion", patients=1), "system", "mask"),
    (dict(system="C10 label diffusion + SPADE LDM", patients=1), "system", "no stack"),
    (dict(system="C99", patients=1), "system", "unknown"),
    (dict(system="C4 SPADE cGAN", patients=1, vendor="A"), "vendor", "mask alone"),
    (dict(system="painter", patients=1, vendor="B"), "vendor", "Canon"),
    (dict(system="painter", patients=1, disease="DCM"), "disease", "NOR"),
    (dict(system="painter", patients=0), "patients", "0 patients"), (dict(system="painter", patients=1, seed=-1), "seed", "-1"),
    (dict(system="painter", patients=1, accept=("orientation",)), "accept", "orientation")])
def test_refused_before_anything_is_trained_or_written(study, cohort, tmp_path, request_, field, says) -> None:
    with pytest.raises(ParameterError, match=says) as caught:
        synthesise(study, Request(**request_), cohort, tmp_path / "out")
    assert field in caught.value.field and "Remedy" in str(caught.value)
    assert not (tmp_path / "out").exists() and not study.work("").exists()


def test_masks_of_others_than_training_patients_are_refused(study: Study, cohort: Slices) -> None:
    for slices in (cohort, cohort.where(split="test"), cohort.where(split="validation")):
        with pytest.raises(SplitError):
            whole_stacks(slices)
    with pytest.raises(SplitError, match="synthetic"):
        whole_stacks(cohort.where(split="train").with_columns(source="painter"))


def test_scans_without_both_phases_or_with_exchanged_ones_are_no_conditions(cohort: Slices) -> None:
    train = cohort.where(split="train")
    lacking = train.take(~((train.patients == "train-0") & (train.table["phase"] == "ES")).to_numpy())
    assert [stack.patient for stack in whole_stacks(lacking)] == ["train-1", "train-2", "train-3"]
    exchanged = train.with_columns(phase=train.table["phase"].map({"ED": "ES", "ES": "ED"}))
    with pytest.raises(DataError, match="4 have both phases"):
        whole_stacks(exchanged)
    assert len(whole_stacks(exchanged, accept=("phases",))) == 4


def test_what_cannot_be_a_heart_is_written_only_where_that_is_accepted(study, cohort, tmp_path) -> None:
    request = dict(system="C16 MOTFM SPADE", patients=2, vendor="A", disease="HCM")  # two steps of training: noise
    with pytest.raises(DataError, match="contrast 2.*\n.*--accept contrast"):
        synthesise(study, Request(**request), cohort, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "study"], "a failed cohort leaves nothing"
    made = synthesise(study, Request(**request, accept=("contrast",)), cohort, tmp_path / "out")
    assert made.report["findings"].str.startswith("contrast").all()
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["accepted"] == {"contrast": 2} and card["request"]["vendor"] == "Siemens"
    assert card["system"]["given"] == ["mask", "vendor", "phase", "disease"]
    assert card["run"]["starts_from"] == "U10 FM" and card["run"]["images_seen"] == 8


def test_tissues_are_written_for_systems_that_draw_them_and_the_vendor_is_unknown_to_others(study, cohort, tmp_path) -> None:
    tissues = np.where(cohort.masks > 0, cohort.masks, 6).astype(np.uint8)
    known = Slices(cohort.images, cohort.masks, cohort.table, tissues)
    made = synthesise(study, Request("C2 SPADE cGAN", 1, accept=("contrast",)), known, tmp_path / "tissues")
    volume = made.cases[0].volumes["ED"]
    assert (set(np.unique(volume.tissues)) == {1, 2, 3, 6}
            and (volume.tissues[volume.mask > 0] == volume.mask[volume.mask > 0]).all())
    chain = synthesise(study, Request("C5 uniform-EF masks + SPADE cGAN", 5, accept=("contrast",)), known, tmp_path / "chain")
    assert all(case.volumes["ED"].tissues is None and case.vendor == "unknown" for case in chain.cases)
    assert json.loads((tmp_path / "chain" / "card.json").read_text())["masks"]["patients"] <= 4


def test_a_folder_that_holds_something_is_left_alone(study: Study, cohort: Slices, tmp_path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert synthesise(study, Request("painter", 1), cohort, out).cases, "an empty folder will do"
    before = files(out)
    with pytest.raises(ParameterError, match="is there already"):
        synthesise(study, Request("painter", 1), cohort, out)
    assert files(out) == before
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ParameterError, match="is there already"):
        synthesise(study, Request("painter", 1), cohort, tmp_path / "link")


def test_the_card_says_what_is_known_and_names_nobody_of_a_real_cohort(study: Study, cohort: Slices, tmp_path) -> None:
    def card(name: str, dataset: str) -> tuple[dict, str]:
        object.__setattr__(study.params, "dataset", dataset)
        synthesise(study, Request("painter", 6), cohort, tmp_path / name)
        return json.loads((tmp_path / name / "card.json").read_text()), (tmp_path / name / "README.md").read_text()

    plain, page = card("plain", "phantom")
    assert plain["privacy"] == {"status": "not audited", "audit": []} and "**Privacy.** not audited." in page
    assert plain["masks"] == {"of": "training patients", "patients": 4, "names": [f"train-{p}" for p in range(4)]}
    assert (plain["run"]["patients"], plain["run"]["seed"], plain["training_cohort"]) == (4, study.seed, "phantom")
    assert plain["run"]["starts_from"] is None and "after those of" not in page
    assert plain["licence"].startswith("Apache-2.0") and plain["patients"] == 6 and plain["blank_slices"] == 6

    row = dict.fromkeys(SCORE_COLUMNS, 0.5) | {"dataset": "acdc", "profile": "smoke", "system": "painter", "better": "lower"}
    rows = [row | {"axis": "privacy", "metric": "near_copies_pixel", "floor": np.nan},
            row | {"axis": "anatomy", "metric": "dice_mean"},
            row | {"axis": "anatomy", "metric": "heart_valid", "system": "other"}]
    folder = study.root / "results" / "acdc"
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(folder / "09.csv", index=False)
    real, page = card("real", "acdc")
    assert real["privacy"]["status"] != "not audited" and real["privacy"]["audit"][0]["floor"] is None
    assert [score["metric"] for score in real["scores"]] == ["dice_mean"] and "0.50" in page
    assert "names" not in real["masks"] and "CC BY-NC-SA" in real["licence"] and "real patients" in page
    written = b"".join(content for name, content in files(tmp_path / "real").items() if not name.endswith(".gz"))
    assert b"train-" not in written and str(tmp_path).encode() not in written


def test_the_folder_is_one_of_nnunet(study: Study, cohort: Slices, tmp_path) -> None:
    synthesise(study, Request("painter", 2), cohort, tmp_path / "out")
    described = json.loads((tmp_path / "out" / "dataset.json").read_text())
    labels = sorted((tmp_path / "out" / "labelsTr").iterdir())
    assert described["numTraining"] == len(labels) == 4 and described["labels"] == {"background": 0, "LV": 1, "Myo": 2, "RV": 3}
    for file in labels:
        mask = nib.load(file)
        image = nib.load(tmp_path / "out" / "imagesTr" / file.name.replace(".nii.gz", "_0000.nii.gz"))
        assert image.shape == mask.shape == (SIZE, SIZE, 6) and np.array_equal(image.affine, mask.affine)
        assert image.header.get_zooms() == mask.header.get_zooms() == (PIXEL, PIXEL, SLICE_MM)


def test_the_command_says_what_it_wrote_or_what_is_wrong(study: Study, cohort: Slices, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(command, "open_study", lambda profile, dataset: study)
    cohort.save(study.work("slices"))
    assert command.main(["painter", "--patients", "2", "--vendor", "A", "--disease", "HCM",
                         "--out", str(tmp_path / "out")]) == 0
    assert "2 synthetic patients" in capsys.readouterr().out and len(read_dataset(tmp_path / "out").cases) == 2
    assert command.main(["painter", "--patients", "2", "--out", str(tmp_path / "out")]) == 2
    assert "Remedy" in capsys.readouterr().err
