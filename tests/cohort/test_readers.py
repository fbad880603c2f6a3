"""Readers: what is written in a layout is read back; damaged files give a case or an error of the study's own."""

from __future__ import annotations

import gzip
import os
import resource
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_writers import SCANS, SHAPE, WRITERS, nifti_bytes, random_case, write_mnms, write_nifti, write_two

from cmri_lib.cohort.case import PHASES, Case
from cmri_lib.cohort.readers.cases import COHORT_FILE, find_scans, layout_of, read_cohort, read_dataset, read_scan
from cmri_lib.cohort.readers.layouts import LAYOUTS
from cmri_lib.cohort.readers.nifti import read_frames, read_header
from cmri_lib.errors import DataError, StudyError

SIDES = st.tuples(st.integers(1, 4), st.integers(12, 17), st.integers(14, 17))
SPACINGS = st.tuples(st.floats(6, 20, width=32), *[st.floats(0.5, 3.5, width=32)] * 2)
STATED = {"acdc": {"covariates": {"Height": 180.0, "Weight": 75.5}},
          "mnms": {"vendor": "Philips", "centre": "3", "covariates": {"Age": 61.0, "Sex": "F", "Height": 160.0}},
          "mnms2": {"vendor": "Philips", "covariates": {"SCANNER": "Achieva", "FIELD": 1.5}},
          "folder": {"vendor": "Esaote", "centre": "Zürich", "covariates": {"BMI": 24.5, "smoker": "no"}}}
OFFICIAL = {"acdc": "training", "mnms": "training", "mnms2": "training"}


def assert_same(read: Case, written: Case, value=lambda stored: stored) -> None:
    for name in ("patient", "scan", "vendor", "centre", "disease"):
        assert getattr(read, name) == getattr(written, name)
    assert read.spacing == pytest.approx(written.spacing, rel=1e-6)
    turn = np.diag([-1, -1, 1, 1]) if written.dataset == "acdc" else np.eye(4)  # as ACDC states it
    np.testing.assert_allclose(read.affine, turn @ written.affine, rtol=1e-6)
    for phase in PHASES:
        ours, theirs = read.volumes[phase], written.volumes[phase]
        assert ours.image.dtype == np.float32 and ours.mask.dtype == np.uint8
        np.testing.assert_array_equal(ours.image, value(theirs.image.astype(np.float64)).astype(np.float32))
        np.testing.assert_array_equal(ours.mask, theirs.mask)
        if theirs.tissues is not None:
            np.testing.assert_array_equal(ours.tissues, theirs.tissues)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=SIDES, spacing=SPACINGS, seed=st.integers(0, 2**16), dtype=st.sampled_from(["<i2", ">i2", "<f4", ">f8"]),
       scaling=st.sampled_from([{}, {"slope": 0.25, "intercept": -3.0}, {"slope": 0.0, "intercept": 5.0}]))
def test_what_is_written_is_read_back(layout, shape, spacing, seed, dtype, scaling):
    tissues = layout in ("mnms", "folder")
    # A heart of these few pixels may be smaller than any human one, and too small to show that blood is bright.
    stated = {**STATED[layout], "covariates": {**STATED[layout]["covariates"], "accept": "volumes contrast"}}
    case = random_case(seed, scan=SCANS[layout][0], shape=shape, spacing=spacing, tissues=tissues,
                       dataset=layout, **stated)
    with tempfile.TemporaryDirectory() as folder:
        WRITERS[layout](Path(folder), [case], dtype, **scaling)
        cohort = read_cohort(folder, layout, dataset="mine")
    slope, intercept = scaling.get("slope") or 1.0, scaling["intercept"] if scaling.get("slope") else 0.0
    assert_same(cohort.cases[0], case, lambda stored: stored * slope + intercept)
    official = {"official": OFFICIAL[layout]} if layout in OFFICIAL else {}
    assert cohort.cases[0].covariates == STATED[layout]["covariates"] | official
    assert cohort.cases[0].dataset == "mine"


@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=SIDES, seed=st.integers(0, 2**16))
def test_axes_and_scaling_agree_with_nibabel(shape, seed):
    case = random_case(seed, shape=shape)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image.nii.gz"
        nib.save(nib.Nifti1Image(case.volumes["ED"].image.T / 7, case.affine), file)  # (X, Y, Z), float32
        header = read_header(file, 3)
        ours = read_frames(file, header, [0])[0]
        image = nib.load(file)
        np.testing.assert_array_equal(ours, image.get_fdata().transpose(2, 1, 0))
        np.testing.assert_array_equal(header.affine, image.affine)
        assert header.spacing == pytest.approx(image.header.get_zooms()[::-1])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(label=st.integers(1, 3), voxel=st.integers(0, int(np.prod(SHAPE)) - 1))
def test_acdc_labels_are_mapped_to_the_same_structures(label, voxel):
    case = random_case(0)
    case.volumes["ED"].mask.flat[:] = 0
    case.volumes["ED"].mask.flat[voxel] = label
    case.covariates["accept"] = "labels phases volumes contrast"  # one voxel is no heart
    with tempfile.TemporaryDirectory() as folder:
        WRITERS["acdc"](Path(folder), [case])
        stored = nib.load(Path(folder) / "training/patient001/patient001_frame01_gt.nii.gz").get_fdata()
        read = read_cohort(folder, "acdc").cases[0].volumes["ED"].mask
    structures = {1: "LV", 2: "Myo", 3: "RV"}
    assert {1: "RV", 2: "Myo", 3: "LV"}[int(stored.max())] == structures[label] == structures[int(read.max())]
    assert np.flatnonzero(read).tolist() == [voxel]


def test_every_cine_frame_but_ed_and_es_is_left_in_the_file(tmp_path):
    cine = np.arange(4 * 2 * 3 * 5).reshape(4, 2, 3, 5)
    write_nifti(tmp_path / "cine.nii.gz", cine)
    header = read_header(tmp_path / "cine.nii.gz", 4)
    frames = read_frames(tmp_path / "cine.nii.gz", header, [3, 1])
    assert set(frames) == {1, 3}
    np.testing.assert_array_equal(frames[3], cine[3])
    np.testing.assert_array_equal(frames[1], cine[1])


def test_a_person_scanned_twice_is_one_patient(tmp_path):
    scans = [random_case(i, scan=scan, patient="P121") for i, scan in enumerate(("P121A", "P121B"))]
    write_mnms(tmp_path, scans)
    table = read_cohort(tmp_path, "mnms").table
    assert table["patient"].tolist() == ["P121", "P121"] and table["scan"].tolist() == ["P121A", "P121B"]


def test_scans_published_without_ground_truth_are_listed(tmp_path):
    write_two(tmp_path, "mnms")
    (tmp_path / "Training/Labeled/B1X2Y3").rename(tmp_path / "Training/Unlabeled")
    cohort = read_cohort(tmp_path, "mnms")
    assert cohort.report.set_index("scan")["status"].to_dict() == {"A0S9V9": "read", "B1X2Y3": "unlabelled"}
    with pytest.raises(DataError, match="no ground truth"):
        read_scan(find_scans(tmp_path, "mnms")[1])


def test_long_axis_views_of_mnms2_are_ignored_and_parts_known(tmp_path):
    write_two(tmp_path, "mnms2")
    (tmp_path / "dataset/001/001_LA_ED.nii.gz").write_bytes(b"not read")
    assert [scan.official for scan in find_scans(tmp_path, "mnms2")] == ["training", "validation"]
    assert len(read_cohort(tmp_path, "mnms2").cases) == 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_is_told_from_the_files_or_stated(tmp_path, layout):
    folder = tmp_path / "mine"
    write_two(folder, layout)
    assert layout_of(folder) == layout
    cohort = read_dataset(folder, limit=1)
    assert [case.dataset for case in cohort.cases] == ["mine"]
    wanted = read_dataset(folder).cases[-1].patient
    some = read_dataset(folder, patients={wanted, "nobody"})
    assert [case.patient for case in some.cases] == [wanted] and list(some.report["patient"]) == [wanted]
    (folder / COHORT_FILE).write_text("layout: folder\n")
    assert layout_of(folder) == "folder"


# --- damaged files -------------------------------------------------------------------------------------------------

MUTANTS = int(os.environ.get("MUTANTS", 560))  # per layout; 2500 is the nightly size
MEMORY_BYTES = 256 << 20
SECONDS = 20
NASTY = (b"", b"-1", b"0", b"1e999", b"nan", b"\x00", b'"', b",", b":", b"\n", b"\xff\xfe", b"9" * 400, b"../..")


def mutate(content: bytes, rng: np.random.Generator, text: bool, header: int) -> bytes:
    """One random damage: flipped bytes (half of them in the header), a cut, a gap, an insertion or doubled part."""
    content, start = bytearray(content), int(rng.integers(len(content)))
    stop = min(len(content), start + int(rng.integers(1, 40)))
    kind = rng.choice(["flip", "flip", "header", "header", "cut", "gap", "insert", "double"])
    if kind in ("flip", "header"):
        end = min(header, len(content)) if kind == "header" else len(content)
        for place in rng.integers(end, size=rng.integers(1, 6)):
            content[place] = int(rng.integers(256))
    elif kind == "cut":
        del content[start:]
    elif kind == "gap":
        del content[start:stop]
    elif kind == "insert":
        content[start:start if rng.random() < 0.5 else stop] = NASTY[rng.integers(len(NASTY))] if text else bytes(
            rng.integers(256, size=9, dtype=np.uint8))
    else:
        content[start:start] = content[start:stop]
    return bytes(content)


def damaged(content: bytes, name: str, rng: np.random.Generator) -> bytes:
    """Half of the archives are damaged inside and compressed again, or the checksum would hide every other fault."""
    if name.endswith(".gz") and rng.random() < 0.5:
        return gzip.compress(mutate(gzip.decompress(content), rng, False, header=352), 1)
    return mutate(content, rng, text=not name.endswith((".gz", ".nii")), header=352)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """While the test runs, MEMORY_BYTES more than now and no more: what asks for them gets a MemoryError, which no reader
    catches. Not the largest size of the process, which a test before may have set. macOS does not hold to such a limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if psutil.LINUX:
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + MEMORY_BYTES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.usefixtures("alarm", "little_memory")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_files_give_a_case_or_an_error_of_the_study(tmp_path, layout):
    write_two(tmp_path, layout)
    files = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    rng = np.random.default_rng(20)
    outcomes = {"case": 0, "error": 0}
    for number in range(MUTANTS):
        file = files[number % len(files)]
        good = file.read_bytes()
        file.write_bytes(damaged(good, file.name, rng))
        signal.alarm(SECONDS)
        try:
            cohort = read_cohort(tmp_path, layout, on_bad_case=("stop", "skip")[number // len(files) % 2])
            assert len(cohort.report) >= 1 and all(isinstance(case, Case) for case in cohort.cases)
            outcomes["case"] += 1
        except StudyError as error:
            assert error.file and error.field and error.remedy in str(error)
            outcomes["error"] += 1
        finally:
            signal.alarm(0)
            file.write_bytes(good)
    assert min(outcomes.values()) > MUTANTS // 20, outcomes


def test_a_header_with_any_byte_changed_is_read_or_refused_in_words(tmp_path):
    """All 352 bytes × 3 values of an uncompressed header, one at a time."""
    file = tmp_path / "image.nii"
    good = nifti_bytes(random_case().volumes["ED"].image, (8, 1.5, 1.25))
    for place in range(352):
        for value in (0, 127, 255):
            file.write_bytes(good[:place] + bytes([value]) + good[place + 1:])
            try:
                header = read_header(file, 3)
                voxels = read_frames(file, header, [0])[0]
                assert voxels.shape == header.shape[::-1] and np.isfinite(voxels).all()
            except DataError as error:
                assert error.file == file and error.field
