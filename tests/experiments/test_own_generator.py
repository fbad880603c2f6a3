"""Anybody's samples are read as they were written, judged by the study's own measures, and copies among them are found."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import discs, split_cohort
from contributing import example
from PIL import Image

from cmri_lib.cohort.own_samples import read_samples
from cmri_lib.cohort.slices import Slices
from cmri_lib.config import study as study_module
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError
from cmri_lib.evaluate import main
from cmri_lib.experiments import instruments
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.own_generator import judge
from cmri_lib.experiments.sample_report import _of_the_study, summary_of, write_report
from cmri_lib.measures.fidelity.distances import distances
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.reporting.results import SCORE_COLUMNS

SIZE = 32
BLACK = np.zeros((2, SIZE, SIZE), np.uint8)


@pytest.fixture(scope="module")
def cohort() -> Slices:
    """Training, validation, test and hold-out patients."""
    return split_cohort(train=8, validation=6, test=6, holdout=6)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path, open_study("smoke", "phantom").params)


def read(folder: Path, **more: object) -> Slices:
    return read_samples(folder, like=discs(2, 2).with_columns(spacing=2.0, slice_mm=8.0), **more)


def test_every_kind_of_file_holds_the_same_image(tmp_path: Path, cohort: Slices) -> None:
    grey = np.round(255 * (cohort.images[:3, 0] + 1) / 2).astype(np.uint8)
    wanted = grey / 127.5 - 1
    for kind in ("arrays", "pictures", "wide", "stack"):
        (tmp_path / kind).mkdir()
    np.save(tmp_path / "arrays" / "a.npy", wanted.astype(np.float32))
    for i, image in enumerate(grey):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i}.png")
        Image.fromarray(image.astype(np.uint16) * 257).save(tmp_path / "wide" / f"{i}.png")
    nib.save(nib.Nifti1Image(np.moveaxis(grey, 0, -1), np.eye(4)), tmp_path / "stack" / "s.nii.gz")
    found = {kind: read(tmp_path / kind) for kind in ("arrays", "pictures", "wide", "stack")}
    for kind, samples in found.items():
        np.testing.assert_allclose(samples.images[:, 0], wanted, atol=1e-6, err_msg=kind)
        assert not samples.masks.any() and set(samples.table["spacing"]) == {2.0} and set(samples.table["slice_mm"]) == {8.0}
    assert {kind: len(set(s.patients)) for kind, s in found.items()} == {"arrays": 3, "pictures": 3, "wide": 3, "stack": 1}


def test_masks_are_found_beside_images_and_told_by_their_convention(tmp_path: Path, cohort: Slices) -> None:
    np.save(tmp_path / "a.npy", cohort.images[:4])
    np.save(tmp_path / "a_gt.npy", np.array([0, 3, 2, 1], np.uint8)[cohort.masks[:4]])
    np.testing.assert_array_equal(read(tmp_path, labels="acdc").masks, cohort.masks[:4])


def test_a_table_says_whose_the_samples_are(tmp_path: Path, cohort: Slices) -> None:
    for i in range(4):
        np.save(tmp_path / f"{i}.npy", cohort.images[i, 0])
        np.save(tmp_path / f"label{i}.npy", cohort.masks[i])
    rows = [{"image": f"{i}.npy", "mask": f"label{i}.npy", "patient": f"P{i // 2}", "vendor": "A"} for i in range(4)]
    pd.DataFrame(rows).to_csv(tmp_path / "samples.csv", index=False)
    found = read(tmp_path)
    assert len(set(found.patients)) == 2 and set(found.table["vendor"]) == {"A"}
    np.testing.assert_array_equal(found.masks, cohort.masks[:4])


def test_other_sizes_are_resampled(tmp_path: Path, cohort: Slices) -> None:
    np.save(tmp_path / "a.npy", cohort.images[:2].repeat(2, 2).repeat(2, 3))
    np.save(tmp_path / "a_mask.npy", cohort.masks[:2].repeat(2, 1).repeat(2, 2))
    found = read(tmp_path)
    assert found.size == SIZE
    np.testing.assert_array_equal(found.masks, cohort.masks[:2])
    assert np.abs(found.images - cohort.images[:2]).mean() < 0.1


@pytest.mark.parametrize("write, message", [
    (lambda f: None, "no samples"),
    (lambda f: np.save(f / "a.npy", np.full((2, 32, 32), 700.0)), "(?s)a.npy.*--range"),
    (lambda f: np.save(f / "a.npy", np.zeros((2, 3, 32, 32))), "shape"),
    (lambda f: (f / "a.png").write_bytes(b"no picture"), "(?s)a.png.*cannot be read"),
    (lambda f: (np.save(f / "a.npy", BLACK), np.save(f / "a_mask.npy", BLACK + 7)), "labels"),
    (lambda f: (np.save(f / "a.npy", BLACK), np.save(f / "a_mask.npy", BLACK[:1])), "mask of shape"),
])
def test_what_cannot_be_understood_is_named(tmp_path: Path, write, message: str) -> None:
    write(tmp_path)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list:
    """Measures that need no training."""
    space = ClassicalFeatures()
    monkeypatch.setattr(Evaluator, "spaces", [space])
    segment = lambda images: np.select([images[:, 0] > 0.2, images[:, 0] > -0.55], [1, 2], 0).astype(np.uint8)  # noqa: E731
    for name in ("segmenter", "second_segmenter"):
        monkeypatch.setattr(Evaluator, name, staticmethod(segment))
    return [distances(space)]


def samples_of(real: Slices) -> Slices:
    return Slices.from_arrays(real.images, None, [f"sample {i}" for i in range(len(real))], spacing=2.0)


def test_copies_are_suspects_and_strangers_are_not(study: Study, cohort: Slices, quick: list) -> None:
    training = cohort.where(split="train")
    copies = judge(study, cohort, samples_of(training), "a copier", measures=quick)
    assert len(copies.copies.suspects) == len(training) and copies.copies.planted["exact"] == 1.0
    honest = judge(study, cohort, samples_of(discs(8, 4, seed=9)), "honest", measures=quick)
    assert len(honest.copies.suspects) < 0.2 * 32
    rate = {found.of.id: next(row["value"] for row in found.rows if row["metric"] == "near_copy_rate_pixel")
            for found in (copies, honest)}
    assert rate["a copier"] == 1.0 and rate["honest"] < 0.2
    assert "Copies of training slices" in summary_of(copies) and "Copies" not in summary_of(honest)


def test_whom_a_generator_has_seen_it_is_not_compared_with(study: Study, cohort: Slices, quick: list) -> None:
    seen = sorted(set(cohort.where(split="holdout").patients))[:3]
    copies = judge(study, cohort, samples_of(cohort.where(patient=seen)), "of the hold-out", learnt_from=seen, measures=quick)
    assert len(copies.copies.suspects) == len(cohort.where(patient=seen)), "its training is who it has seen"
    with pytest.raises(DataError, match="(?s)nobody-knows.*trained-on|trained-on.*nobody-knows"):
        judge(study, cohort, samples_of(cohort), "x", learnt_from=["nobody-knows"], measures=quick)
    for splits, message in ((["train", "test"], "all test patients"), (["validation", "holdout"], "all validation and hold")):
        with pytest.raises(DataError, match=message):
            judge(study, cohort, samples_of(cohort), "x", learnt_from=sorted(set(cohort.where(split=splits).patients)),
                  measures=quick)
    with pytest.raises(DataError, match="real"):
        judge(study, cohort, samples_of(cohort), "real", measures=quick)


def test_floors_are_of_as_many_slices_as_there_are_samples(study: Study, cohort: Slices, quick: list,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    bounds = Evaluator.bounds.func
    monkeypatch.setattr(Evaluator, "bounds", property(lambda self: sizes.append(len(self.conditions)) or bounds(self)))
    seen = sorted(set(cohort.where(split="test").patients))[:3]
    for learnt_from in ((), seen):
        judge(study, cohort, samples_of(discs(5, 4, seed=9)), "x", learnt_from=learnt_from, measures=quick)
    assert sizes == [20, 20]


def test_without_a_hold_out_only_the_search_for_copies_is_left_out(study: Study, cohort: Slices, quick: list) -> None:
    some = cohort.where(split=["train", "validation", "test"])
    seen = sorted(set(cohort.where(split="train").patients))[:4]
    found = judge(study, some, samples_of(discs(5, 4, seed=9)), "x", learnt_from=seen, measures=quick)
    assert found.rows and not found.copies and "no search for copies" in found.notes[0]


def test_a_generator_called_like_one_of_the_study_takes_its_place(study: Study, cohort: Slices, quick: list,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    found = judge(study, cohort, samples_of(discs(5, 4, seed=9)), "U10 FM", measures=quick)
    theirs = [{"dataset": study.dataset, "profile": study.profile, "family": "flow", "conditioning": "none", "axis": "fidelity",
               "metric": "kid_study", "value": 0.5, "low": 0.4, "high": 0.6, "better": "lower", "system": system}
              for system in ("U10 FM", "U6 DDPM")]
    monkeypatch.setattr("cmri_lib.experiments.sample_report.union",
                        lambda root: pd.DataFrame(theirs).reindex(columns=list(SCORE_COLUMNS)))
    shown = _of_the_study(study, found)
    assert list(shown["system"]) == ["U6 DDPM"]


def test_the_report_says_the_same_in_every_form(study: Study, cohort: Slices, quick: list, tmp_path: Path) -> None:
    names = [f"sample {i}" for i in range(20)]
    masked = Slices.from_arrays(cohort.images[:20], cohort.masks[:20], names, spacing=2.0, slice_mm=8.0)
    found = judge(study, cohort, masked, "my <GAN>", measures=quick)
    page = write_report(study, found, tmp_path / "report")
    table = pd.read_csv(tmp_path / "report" / "scores.csv")
    facts = json.loads((tmp_path / "report" / "report.json").read_text())
    assert list(table) == list(SCORE_COLUMNS) and len(table) == len(facts["scores"]) == len(found.rows)
    assert {"dice_mean", "dice_mean_second", "kid_classical"} <= set(table["metric"])
    text = (tmp_path / "report" / "report.md").read_text()
    assert "20 samples with masks" in text and "| exact | 100% |" in text and "mirrored" in text
    html = page.read_text()
    assert "my &lt;GAN&gt;" in html and "<GAN>" not in html and "<table>" in html
    assert all((tmp_path / "report" / name).stat().st_size > 5000 for name in ("samples.png", "scoreboard.png"))


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmri_lib.evaluate.open_study", lambda *of: Study(tmp_path, open_study("smoke", "phantom").params))
    assert main([str(tmp_path)]) == 2 and "slices.safetensors: no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path), "--samples", "1"])
    assert "--samples: at least two" in capsys.readouterr().err


def test_the_command_writes_a_report(study: Study, cohort: Slices, quick: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                     capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("cmri_lib.evaluate.open_study", lambda *of: study)
    monkeypatch.setattr(Evaluator, "measures", quick)
    cohort.save(study.work("slices"))
    (tmp_path / "mine").mkdir()
    mine = discs(8, 4, seed=9)
    np.save(tmp_path / "mine" / "a.npy", mine.images)
    np.save(tmp_path / "mine" / "a_mask.npy", mine.masks)
    assert main([str(tmp_path / "mine"), "--out", str(tmp_path / "out"), "--samples", "24"]) == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["samples"] == 24
    assert "report.html" in capsys.readouterr().out


def test_the_example_with_plain_diffusers_code_makes_samples_that_are_read(cohort: Slices, tmp_path: Path,
                                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    code = example("from diffusers")
    for long, short in (("range(3000)", "range(2)"), ("set_timesteps(50)", "set_timesteps(2)"), ("randn(150", "randn(4")):
        assert long in code
        code = code.replace(long, short)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(instruments, "load_slices", lambda study: cohort)
    monkeypatch.setattr(study_module, "open_study", lambda: None)
    exec(compile(code, "CONTRIBUTING.md", "exec"), {})
    found = read_samples(tmp_path / "samples", like=cohort)
    assert len(found) == 4 and found.size == SIZE and np.isfinite(found.images).all() and found.images.std() > 0.01
