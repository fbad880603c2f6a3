"""Bad input of every kind ends in the study's own error, which names the file, the field and the remedy."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from layout_writers import SCANS, SHAPE, SPACING, nifti_bytes, random_case, write_nifti, write_two

from cmri_lib.cohort.case import Case, Volume
from cmri_lib.cohort.readers.cases import layout_of, read_cohort, read_dataset
from cmri_lib.cohort.splits import apply_split, load_split, read_split
from cmri_lib.errors import DataError, ParameterError, SplitError, StudyError

ACDC_IMAGE = "training/patient001/patient001_frame01.nii.gz"
ACDC_MASK = "training/patient001/patient001_frame01_gt.nii.gz"
ACDC_INFO = "training/patient001/Info.cfg"
CINE = "Training/Labeled/A0S9V9/A0S9V9_sa.nii.gz"
CINE_MASK = "Training/Labeled/A0S9V9/A0S9V9_sa_gt.nii.gz"
TABLE = "information.csv"
ONES = np.ones(SHAPE)


@dataclass(frozen=True)
class Fault:
    """One kind of damage: what it does to a good cohort, and the file and field that the message must name."""

    name: str
    layout: str
    file: str
    field: str
    spoil: Callable[[Path], object]  # receives the path of `damages`
    damages: str = ""  # the file that is damaged, where it is not the one to blame
    whole: bool = False  # the table is unusable as a whole: it stops the reading even under on_bad_case="skip"


def edit(*pairs: tuple[str, str]) -> Callable[[Path], None]:
    """Replace text in a file; each pair must apply."""
    def spoil(file: Path) -> None:
        text = file.read_text()
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new, 1)
        file.write_text(text)
    return spoil


def in_header(offset: int, form: str, *values: float) -> Callable[[Path], None]:
    """Overwrite header entries of an archive (byte offsets of the NIfTI-1 standard)."""
    def spoil(file: Path) -> None:
        content = bytearray(gzip.decompress(file.read_bytes()))
        struct.pack_into(form, content, offset, *values)
        file.write_bytes(gzip.compress(bytes(content)))
    return spoil


def voxels(array: np.ndarray, dtype: str = "<f4", **header: object) -> Callable[[Path], None]:
    return lambda file: write_nifti(file, array, dtype=dtype, turned="patient" in file.name, **header)  # as ACDC does


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-6] ^= 255  # in the checksum at the end
    file.write_bytes(bytes(content))


def repeat_last_line(file: Path) -> None:
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[-1]]) + "\n")


def one_value(value: float) -> np.ndarray:
    array = ONES.copy()
    array[1, 2, 3] = value
    return array


LABELS_0_TO_7 = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 8
FAULTS = [
    # the archive
    Fault("truncated gzip", "acdc", ACDC_IMAGE, "content", cut),
    Fault("truncated gzip of a cine", "mnms", CINE, "content", cut),
    Fault("wrong checksum", "acdc", ACDC_IMAGE, "content", flip_a_byte),
    Fault("not gzip at all", "acdc", ACDC_IMAGE, "gzip", lambda f: f.write_bytes(b"<html>404</html>" * 60)),
    Fault("uncompressed under the name .gz", "acdc", ACDC_MASK, "gzip",
          lambda f: f.write_bytes(gzip.decompress(f.read_bytes()))),
    Fault("empty file", "acdc", ACDC_IMAGE, "gzip", lambda f: f.write_bytes(b"")),
    Fault("absent image", "acdc", ACDC_IMAGE, "ED image", Path.unlink),
    Fault("absent mask", "mnms", CINE_MASK, "ED mask", Path.unlink),
    Fault("file goes on after the last voxel", "acdc", ACDC_IMAGE, "dim",
          lambda f: f.write_bytes(gzip.compress(nifti_bytes(ONES, SPACING) + bytes(30)))),
    # the header
    Fault("header cut short", "acdc", ACDC_IMAGE, "header", lambda f: f.write_bytes(gzip.compress(bytes(100)))),
    Fault("bad magic", "acdc", ACDC_IMAGE, "magic", in_header(344, "4s", b"abcd")),
    Fault("header of zeros", "acdc", ACDC_IMAGE, "magic", lambda f: f.write_bytes(gzip.compress(bytes(700)))),
    Fault("2D where 3D is due", "acdc", ACDC_IMAGE, "dim", voxels(ONES[0])),
    Fault("2D where 4D is due", "mnms", CINE, "dim", voxels(ONES[0])),
    Fault("3D where 4D is due", "mnms", CINE, "dim", voxels(ONES)),
    Fault("4D where 3D is due", "acdc", ACDC_IMAGE, "dim", voxels(np.ones((2, *SHAPE)))),
    Fault("30000³ voxels declared", "acdc", ACDC_IMAGE, "dim", in_header(40, "<4h", 3, 30000, 30000, 30000)),
    Fault("more slices declared than stored", "acdc", ACDC_IMAGE, "content", in_header(40, "<4h", 3, 15, 16, 5)),
    Fault("negative side", "acdc", ACDC_IMAGE, "dim", in_header(40, "<4h", 3, 15, -16, 4)),
    Fault("complex voxels", "acdc", ACDC_IMAGE, "datatype", in_header(70, "<2h", 32, 64)),
    Fault("RGB voxels", "acdc", ACDC_IMAGE, "datatype", in_header(70, "<2h", 128, 24)),
    Fault("bits that do not fit the type", "acdc", ACDC_IMAGE, "bitpix", in_header(70, "<2h", 4, 8)),
    Fault("zero spacing", "acdc", ACDC_IMAGE, "pixdim", in_header(80, "<3f", 1.5, 0, 10)),
    Fault("negative spacing", "acdc", ACDC_IMAGE, "pixdim", in_header(80, "<3f", -1.5, 1.5, 10)),
    Fault("NaN spacing", "mnms", CINE, "pixdim", in_header(80, "<3f", 1.5, 1.5, float("nan"))),
    Fault("spacing in micrometres", "acdc", ACDC_IMAGE, "pixdim", in_header(80, "<3f", 1500, 1500, 10000)),
    Fault("unit of metres", "acdc", ACDC_IMAGE, "xyzt_units", in_header(123, "B", 1)),
    Fault("singular affine", "acdc", ACDC_IMAGE, "sform/qform", in_header(280, "<12f", *[0.0] * 12)),
    Fault("voxels begin inside the header", "acdc", ACDC_IMAGE, "vox_offset", in_header(108, "<f", 20)),
    Fault("infinite scaling", "acdc", ACDC_IMAGE, "scl_slope/scl_inter", in_header(112, "<2f", float("inf"), 0)),
    # the voxels
    Fault("NaN", "acdc", ACDC_IMAGE, "voxels", voxels(one_value(np.nan))),
    Fault("infinite voxel", "acdc", ACDC_IMAGE, "voxels", voxels(one_value(np.inf))),
    Fault("not finite after scaling", "acdc", ACDC_IMAGE, "voxels",
          voxels(one_value(30000), "<i2", slope=1e35, intercept=0)),
    Fault("labels 0–7", "acdc", ACDC_MASK, "labels", voxels(LABELS_0_TO_7, "u1")),
    Fault("label 1.5", "acdc", ACDC_MASK, "labels", voxels(one_value(1.5))),
    Fault("negative label", "acdc", ACDC_MASK, "labels", voxels(one_value(-1))),
    Fault("mask of other shape", "acdc", ACDC_MASK, "dim", voxels(np.ones((4, 15, 15)), "u1")),
    Fault("mask of fewer frames", "mnms", CINE_MASK, "dim", voxels(np.ones((2, *SHAPE)), "u1")),
    Fault("empty mask", "acdc", ACDC_MASK, "ED mask", voxels(0 * ONES, "u1")),
    Fault("empty ES frame of a mask", "mnms", CINE_MASK, "ES mask",
          voxels(np.stack([0 * ONES, ONES, ONES]), "u1")),
    Fault("ED and ES of different spacing", "acdc", "training/patient001/patient001_frame09.nii.gz", "pixdim",
          voxels(ONES, spacing=(10.0, 2.5, 2.5))),
    # Info.cfg
    Fault("Info.cfg absent", "acdc", ACDC_INFO, "path", Path.unlink),
    Fault("Info.cfg lacks ES", "acdc", ACDC_INFO, "ES", edit(("ES: 9\n", ""))),
    Fault("Info.cfg malformed", "acdc", ACDC_INFO, "ED = 1", edit(("ED: 1", "ED = 1"))),
    Fault("Info.cfg states ED twice", "acdc", ACDC_INFO, "ED", edit(("ES: 9", "ES: 9\nED: 2"))),
    Fault("Info.cfg not text", "acdc", ACDC_INFO, "content", lambda f: f.write_bytes(b"\xff\xfe\x00E\x00D")),
    Fault("frame without a file", "acdc", "patient001_frame12.nii.gz", "ES image",
          edit(("ES: 9", "ES: 12")), ACDC_INFO),
    Fault("non-numeric frame", "acdc", ACDC_INFO, "ED", edit(("ED: 1", "ED: one"))),
    Fault("frame 0 where frames count from 1", "acdc", ACDC_INFO, "ED", edit(("ED: 1", "ED: 0"))),
    Fault("ED is ES", "acdc", ACDC_INFO, "ED, ES", edit(("ES: 9", "ES: 1"))),
    Fault("unknown group", "acdc", ACDC_INFO, "Group", edit(("NOR", "ABC"))),
    # tables
    Fault("frame outside the cine", "mnms", TABLE, "ED", edit((",2,0,", ",25,0,"))),
    Fault("half a frame", "mnms", TABLE, "ED", edit((",2,0,", ",2.5,0,"))),
    Fault("missing ES", "mnms", TABLE, "ES", edit((",2,0,", ",2,,"))),
    Fault("ED is ES in the table", "mnms", TABLE, "ED, ES", edit((",2,0,", ",0,0,"))),
    Fault("unknown vendor code", "mnms", TABLE, "Vendor", edit((",A,", ",X,"))),
    Fault("no vendor name", "mnms", TABLE, "VendorName", edit(("Siemens", ""))),
    Fault("unknown vendor of M&Ms-2", "mnms2", "dataset_information.csv", "VENDOR", edit(("SIEMENS", "ACME"))),
    Fault("row without images", "mnms", TABLE, "External code", edit(("A0S9V9", "Z9Z9Z9"))),
    Fault("M&Ms-2 folder without a row", "mnms2", "dataset_information.csv", "SUBJECT_CODE",
          lambda f: (f.parent / "dataset/007").mkdir()),
    Fault("no vendor in the table", "folder", "scans.csv", "vendor", edit(("Siemens", ""))),
    Fault("ES row missing", "folder", "scans.csv", "phase",
          lambda f: f.write_text("\n".join(line for line in f.read_text().splitlines() if ",first,ES," not in line))),
    Fault("unknown phase", "folder", "scans.csv", "phase", edit((",ES,", ",mid,"))),
    Fault("row without mask", "folder", "scans.csv", "mask", edit(("images/first_ED_mask.nii", ""))),
    Fault("path that leads nowhere", "folder", "gone.nii", "ED image",
          edit(("first_ED_image.nii", "gone.nii")), "scans.csv"),
    Fault("one file for ED and ES", "folder", "scans.csv", "image", edit(("first_ES_image", "first_ED_image"))),
    Fault("one scan of two patients", "folder", "scans.csv", "patient", edit(("first,first,ES", "other,first,ES"))),
    # tables that are unusable as a whole
    Fault("duplicate patient", "mnms", TABLE, "External code", repeat_last_line, whole=True),
    Fault("duplicate phase of a scan", "folder", "scans.csv", "patient, phase", repeat_last_line, whole=True),
    Fault("patient in training and testing", "acdc", "", "patient folder",
          lambda f: (f / "testing/patient001").mkdir(parents=True), whole=True),
    Fault("missing column", "mnms", TABLE, "Centre", edit(("Centre", "Center")), whole=True),
    Fault("missing first column", "folder", "scans.csv", "patient", edit(("patient,", "person,")), whole=True),
    Fault("same column twice", "mnms", TABLE, "header", edit(("Age", "Sex")), whole=True),
    Fault("row too long", "mnms", TABLE, "record 2", edit((",2,0,", ",2,0,,")), whole=True),
    Fault("unclosed quote", "mnms", TABLE, "content", edit((",2,0,", ',2,0,"')), whole=True),
    Fault("row without a code", "mnms", TABLE, "External code", edit(("A0S9V9,", ",")), whole=True),
    Fault("table without rows", "mnms", TABLE, "External code",
          lambda f: f.write_text(f.read_text().splitlines()[0]), whole=True),
    Fault("table not text", "mnms", TABLE, "content", lambda f: f.write_bytes(b"\x89PNG\xff"), whole=True),
    Fault("no table", "mnms", "*.csv", "External code", Path.unlink, TABLE, whole=True),
    Fault("two tables", "mnms", "*.csv", "External code",
          lambda f: f.with_name("copy.csv").write_text(f.read_text()), TABLE, whole=True),
]


def assert_clear(error: StudyError, file: str | Path, field: str) -> None:
    """The message names file, field and remedy."""
    message = str(error)
    assert str(error.file).endswith(str(file)) and str(error.file) in message
    assert error.field == field and f"[{field}]" in message
    assert len(error.remedy) > 10 and f"Remedy: {error.remedy}" in message


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_bad_cohort_stops_the_run_or_is_listed(tmp_path, fault):
    write_two(tmp_path, fault.layout)
    read_cohort(tmp_path, fault.layout)  # it was good
    fault.spoil(tmp_path / (fault.damages or fault.file))
    with pytest.raises(DataError) as caught:
        read_cohort(tmp_path, fault.layout)
    assert_clear(caught.value, fault.file, fault.field)
    if fault.whole:
        with pytest.raises(DataError):
            read_cohort(tmp_path, fault.layout, on_bad_case="skip")
        return
    cohort = read_cohort(tmp_path, fault.layout, on_bad_case="skip")
    assert SCANS[fault.layout][1] in [case.scan for case in cohort.cases]
    assert str(caught.value) in cohort.report.loc[cohort.report["status"] == "bad", "problem"].tolist()


@pytest.mark.parametrize("layout", ["acdc", "mnms", "mnms2", "folder"])
def test_empty_and_absent_folders_are_named(tmp_path, layout):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError) as caught:
            read_cohort(folder, layout)
        assert str(folder) in str(caught.value) and caught.value.field and caught.value.remedy


def test_nothing_readable_is_an_error_even_when_bad_cases_are_skipped(tmp_path):
    write_two(tmp_path, "acdc")
    for info in tmp_path.rglob("Info.cfg"):
        info.unlink()
    with pytest.raises(DataError, match="none of 2 scans can be read") as caught:
        read_cohort(tmp_path, "acdc", on_bad_case="skip")
    assert_clear(caught.value, tmp_path, "scans")


def test_wrong_parameters_of_reading_are_refused(tmp_path):
    write_two(tmp_path, "acdc")
    with pytest.raises(ParameterError, match="use one of acdc, mnms, mnms2, folder"):
        read_cohort(tmp_path, "acdc2")
    with pytest.raises(ParameterError, match="use stop or skip"):
        read_cohort(tmp_path, "acdc", on_bad_case="ignore")


@pytest.mark.parametrize("text", ["layout: acdc2\n", "acdc", "layout: [", "layout: {a: 1}", "\x00", ""])
def test_a_cohort_file_that_names_no_layout_is_named(tmp_path, text):
    (tmp_path / "cohort.yaml").write_text(text)
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert_clear(caught.value, "cohort.yaml", "layout")


def test_a_folder_of_no_known_layout_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match="no layout fits") as caught:
        layout_of(tmp_path)
    assert_clear(caught.value, tmp_path, "layout")


def test_a_case_checks_itself():
    good = random_case()
    bad = np.array([[[9]]], np.uint8)
    image = np.zeros((1, 1, 1), np.float32)
    for volumes, field in (({"ED": good.volumes["ED"]}, "ES"),
                           ({**good.volumes, "ES": Volume(image, bad)}, "ES mask"),
                           ({**good.volumes, "ES": Volume(image, 0 * bad)}, "ES mask"),
                           ({**good.volumes, "ES": Volume(image * np.nan, bad)}, "ES image"),
                           ({**good.volumes, "ES": Volume(image[0], bad)}, "ES image")):
        with pytest.raises(DataError) as caught:
            Case("p", "p", volumes, good.spacing, good.affine, file=Path("p.nii"))
        assert_clear(caught.value, "p.nii", field)


SPLIT_FAULTS = {
    "patient in two splits": ("patient,split\na,train\na,test\n", "patient"),
    "patient listed twice": ("patient,split\na,train\na,train\n", "patient"),
    "unknown split": ("patient,split\na,training\n", "split"),
    "no split column": ("patient,part\na,train\n", "split"),
    "empty list": ("patient,split\n", "patient"),
    "nameless patient": ("patient,split\n,train\n", "patient"),
}


@pytest.mark.parametrize("name", SPLIT_FAULTS)
def test_bad_lists_of_patients_are_named(tmp_path, name):
    text, field = SPLIT_FAULTS[name]
    file = tmp_path / "split.csv"
    file.write_text(text)
    with pytest.raises(SplitError) as caught:
        load_split("mine", tmp_path)
    assert_clear(caught.value, file, field)


def test_patients_outside_the_list_are_refused_and_so_is_an_absent_list(tmp_path):
    file = tmp_path / "split.csv"
    with pytest.raises(SplitError) as caught:
        load_split("mine", tmp_path)
    assert_clear(caught.value, file, "split")
    file.write_text("patient,split\na,train\nb,test\n")
    split = read_split(file)
    assert apply_split(["b", "a", "b"], split) == {"a": "train", "b": "test"}
    with pytest.raises(SplitError, match="c, d") as caught:
        apply_split(["a", "c", "d"], split)
    assert_clear(caught.value, file, "patient")
