"""What two statements contradict is refused by name; what is said in other words gives the very same case."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from layout_writers import (WRITERS, affine, random_case, write_acdc, write_folder, write_mnms, write_mnms2,
                            write_nifti)
from mutations import RESTATED, SPOILT, outcomes, read_scans, same, stored

from cmri_lib.cohort import add
from cmri_lib.cohort.plausibility import CHECKS, findings
from cmri_lib.cohort.readers.cases import read_cohort, read_dataset
from cmri_lib.cohort.readers.geometry import Arrangement, Grid, arrange, disagreement, voxel_sizes
from cmri_lib.errors import DataError, SplitError

FILE = Path("image.nii")


def grid(matrix: np.ndarray, shape=(160, 140, 10), spacing=(1.5, 1.5, 10.0), oriented: bool = True) -> Grid:
    """A grid whose axes lie along the columns of `matrix` (L, P, S)."""
    form = np.eye(4)
    form[:3, :3] = np.diag([-1, -1, 1]) @ np.asarray(matrix, float) @ np.diag(spacing)
    return Grid(shape, spacing, form, oriented)


def refused(*scans: dict, folder: Path, accept: str = "") -> DataError:
    with pytest.raises(DataError) as caught:
        read_scans(folder, *scans, accept=accept)
    return caught.value


# ---------------------------------------------------------------- axes: closed forms

def test_a_radiological_display_stays_and_every_other_storage_is_brought_to_it():
    """All 48 orders and directions of the axes, restated by nibabel, give back the stored array and its grid."""
    voxels, home = np.arange(4 * 5 * 3, dtype=np.int16).reshape(4, 5, 3), grid(np.eye(3), shape=(4, 5, 3))
    assert arrange(home, FILE) == Arrangement() and Arrangement().voxels(voxels) is voxels
    for axes, signs in product(permutations(range(3)), product((-1, 1), repeat=3)):
        image = nib.Nifti1Image(voxels, home.affine).as_reoriented(np.c_[np.argsort(axes), signs])
        there = Grid(image.shape, voxel_sizes(image.affine), image.affine)
        arrangement = arrange(there, FILE)
        np.testing.assert_array_equal(arrangement.voxels(np.asarray(image.dataobj).T).T, voxels)
        back = arrangement.grid(there)
        np.testing.assert_allclose(back.affine, home.affine, atol=1e-12)
        assert (back.shape, back.spacing) == (home.shape, home.spacing)


def test_short_axis_slices_run_from_base_to_apex_whatever_the_tilt():
    """The apex of a short-axis stack lies to the left, in front and below; a plane through the axis L + P is as the
    scanner gives it: columns towards L + P, rows downwards."""
    columns = np.array([1, 1, 0]) / np.sqrt(2)
    for tilt in np.radians((-15, 0, 15)):
        apex = np.cos(tilt) * np.array([1, -1, -1]) / np.sqrt(3) + np.sin(tilt) * np.array([1, -1, 2]) / np.sqrt(6)
        rows = np.cross(apex, columns)
        rows *= -np.sign(rows[2])
        axes = np.stack([columns, rows, apex], axis=1)
        assert arrange(grid(axes), FILE) == Arrangement()
        assert arrange(grid(axes * [1, 1, -1]), FILE) == Arrangement(reverse=(False, False, True))
        assert arrange(grid(axes[:, [1, 0, 2]] * [-1, 1, 1]), FILE) == Arrangement((1, 0, 2), (False, True, False))


def test_acdc_states_x_and_y_the_other_way_round():
    """Its nominal affine is diag(1.5, 1.5, 10), and its files are kept as stored; elsewhere that means a half-turn."""
    nominal = grid(np.diag([-1, -1, 1]))
    assert arrange(nominal, FILE, nominal=True) == Arrangement()
    assert arrange(nominal, FILE) == Arrangement(reverse=(True, True, False))
    assert arrange(replace(nominal, oriented=False), FILE, nominal=True) == Arrangement()


@pytest.mark.parametrize("shape, spacing, axis", [
    ((10, 140, 160), (10, 1.5, 1.5), 0), ((160, 160, 120), (1.3, 1.3, 1.3), None), ((160, 160, 60), (1, 1, 1), 2),
    ((15, 16, 4), (3.5, 4, 10), 2), ((256, 12, 256), (1.5, 1.5, 1.5), 1), ((12, 256, 256), (1.5, 1.5, 10), None)])
def test_the_slice_axis_is_the_one_of_large_distance_or_few_voxels(shape, spacing, axis):
    lying = grid(np.eye(3), shape, tuple(map(float, spacing)))
    if axis is None:
        with pytest.raises(DataError, match="which axis lies across the slices cannot be known"):
            arrange(lying, FILE)
    else:
        assert arrange(lying, FILE).axes[2] == axis


def test_two_grids_may_differ_within_their_tolerances():
    home = grid(np.eye(3))
    turn = np.radians(4.9)
    tilted = grid([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    assert disagreement(home, tilted) is None
    assert disagreement(home, grid(np.eye(3), spacing=(1.514, 1.5, 10.0))) is None
    assert disagreement(home, grid(np.eye(3), spacing=(1.52, 1.5, 10.0))) == (
        "pixdim", "spacing 1.5 × 1.5 × 10 mm", "1.52 × 1.5 × 10 mm")
    moved = replace(home, affine=home.affine + np.pad([[1.4]], ((0, 3), (3, 0))))
    assert disagreement(home, moved) is None
    moved = replace(home, affine=home.affine + np.pad([[1.6]], ((0, 3), (3, 0))))
    assert disagreement(home, moved) == ("sform/qform", "its first voxel at 0 × 0 × 0 mm", "1.6 × 0 × 0 mm")
    turned = grid(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]]))
    assert disagreement(home, turned)[0] == "sform/qform"
    assert disagreement(home, replace(turned, oriented=False)) is None


# ---------------------------------------------------------------- geometry of a scan: exact messages

def test_a_mask_of_another_spacing_is_refused(tmp_path):
    scan = stored(random_case())
    ones = replace(scan["ED", "mask"], pixdim=np.ones(3), sform=np.diag([-1.0, -1, 1, 1]))
    error = refused(scan | {("ED", "mask"): replace(ones, voxels=np.tile(ones.voxels, (2, 2, 1)))}, folder=tmp_path)
    assert "ED mask has shape (30, 32, 4), its image (15, 16, 4)" in str(error)
    spaced = replace(scan["ED", "mask"], pixdim=np.array([1, 1, 2.0]), sform=np.diag([-1.0, -1, 2, 1]))
    error = refused(scan | {("ED", "mask"): spaced}, folder=tmp_path)
    assert error.problem == "ED mask has spacing 1 × 1 × 2 mm, its image 3.5 × 4 × 10 mm"
    assert error.file == tmp_path / "p0_ED_mask.nii" and error.field == "pixdim"


def test_pixdim_that_contradicts_the_affine_is_refused(tmp_path):
    """The volume of a heart was 36 or 1.6 mL, as one believed the one or the other."""
    scan = {key: replace(file, pixdim=np.ones(3)) for key, file in stored(random_case()).items()}
    error = refused(scan, folder=tmp_path)
    assert error.problem == "sform and pixdim contradict each other: spacing 3.5 × 4 × 10 mm against 1 × 1 × 1 mm"
    assert error.field == "pixdim, sform"


def test_sform_that_contradicts_qform_is_refused(tmp_path):
    scan = stored(random_case())
    turned = replace(scan["ED", "image"], qform=np.diag([3.5, -4.0, -10.0, 1.0]))
    error = refused(scan | {("ED", "image"): turned}, folder=tmp_path)
    assert error.problem == ("sform and qform contradict each other: axis x along (-1.0, 0.0, 0.0) against "
                             "(1.0, 0.0, 0.0)")


def test_sheared_and_single_forms_go_on_working(tmp_path):
    shear = np.eye(4)
    shear[0, 1] = 0.05
    for form in ({"sform": shear @ affine((10.0, 4.0, 3.5))}, {"sform": None, "qform": affine((10.0, 4.0, 3.5))}):
        scan = {key: replace(file, **form) for key, file in stored(random_case()).items()}
        assert same(read_scans(tmp_path, scan)[0], random_case())


def test_ed_and_es_of_two_stacks_are_refused(tmp_path):
    scan, elsewhere = stored(random_case()), np.eye(4)
    elsewhere[2, 3] = 20
    moved = {("ES", kind): replace(scan["ES", kind], sform=elsewhere @ scan["ES", kind].sform)
             for kind in ("image", "mask")}
    error = refused(scan | moved, folder=tmp_path)
    assert error.problem == ("ES image has its first voxel at 40 × -30.5 × 32 mm, ED image 40 × -30.5 × 12 mm")


def test_an_orientation_that_is_not_stated_is_refused_or_accepted(tmp_path):
    scan = {key: replace(file, sform=None) for key, file in stored(random_case()).items()}
    error = refused(scan, folder=tmp_path)
    assert error.field == "sform/qform" and "accept 'orientation'" in error.remedy
    assert same(read_scans(tmp_path, scan, accept="orientation")[0], random_case())


@pytest.mark.parametrize("layout", WRITERS)
def test_exchanged_axes_are_read_alike_in_every_layout(tmp_path, layout):
    """x and y exchanged, and the slices first: said so in the affine, it is the same heart."""
    scan = {"acdc": "patient001", "mnms": "A0S9V9", "mnms2": "001", "folder": "first"}[layout]
    case = random_case(scan=scan)
    WRITERS[layout](tmp_path, [case])
    for axes in ((1, 0, 2), (2, 0, 1)):
        for path in tmp_path.rglob("*.nii*"):
            image = nib.load(path)
            order = np.c_[np.argsort(axes), [1, -1, 1]]
            data = np.asarray(image.dataobj)
            path.unlink()
            nib.save(nib.Nifti1Image(data, image.affine, image.header).as_reoriented(order), path)
        assert same(read_cohort(tmp_path, layout).cases[0], case)


# ---------------------------------------------------------------- content: exact messages

def test_another_order_of_labels_is_refused(tmp_path):
    scan = stored(random_case())
    acdc = {(p, "mask"): replace(scan[p, "mask"], voxels=np.array([0, 3, 2, 1], np.uint8)[scan[p, "mask"].voxels])
            for p in ("ED", "ES")}
    error = refused(scan | acdc, folder=tmp_path)
    assert "what is labelled RV is enclosed by what is labelled Myo: the labels come in another order" in error.problem
    assert error.field == "phases, labels" and "write 'phases labels' into accept of this scan in scans.csv" in error.remedy


def test_ed_and_es_exchanged_are_refused_unless_accepted(tmp_path):
    scan = stored(random_case())
    exchanged = {(p, k): scan[q, k] for p, q in (("ED", "ES"), ("ES", "ED")) for k in ("image", "mask")}
    error = refused(exchanged, folder=tmp_path)
    assert error.problem == ("scan p0: the LV has 5.0 mL at ED and 27.4 mL at ES: ED and ES are exchanged, or a mask is "
                             "used twice")
    case, = read_scans(tmp_path, exchanged, accept="phases")
    assert case.findings == (error.problem.replace("scan p0", "phases"),)
    report = read_cohort(tmp_path, "folder").report
    assert report.loc[0, ["status", "findings"]].tolist() == ["read", case.findings[0]]
    error = refused(exchanged, folder=tmp_path, accept="phase")
    assert error.problem == "no check is called 'phase'" and error.field == "accept"


def test_a_blank_image_and_an_inverted_one_are_refused(tmp_path):
    scan = stored(random_case())
    image = scan["ES", "image"]
    error = refused(scan | {("ES", "image"): replace(image, voxels=0 * image.voxels)}, folder=tmp_path)
    assert error.problem == "scan p0: ES: 4 of 4 labelled slices are blank, e.g. slice 0"
    error = refused(scan | {("ES", "image"): replace(image, voxels=1000 - image.voxels)}, folder=tmp_path)
    assert "ES: blood in the LV" in error.problem and "is not brighter than myocardium" in error.problem


def test_volumes_of_no_human_are_refused(tmp_path):
    small = {key: replace(file, pixdim=file.pixdim / 4, sform=np.diag([0.25, 0.25, 0.25, 1]) @ file.sform)
             for key, file in stored(random_case()).items()}
    error = refused(small, folder=tmp_path)
    assert "LV at ED has 0.4288 mL, not 3 to 1200: spacing or labels are wrong" in error.problem


def test_intensities_that_overflow_are_refused_by_name_of_scan(tmp_path):
    scan = stored(random_case())
    huge = replace(scan["ED", "image"], voxels=scan["ED", "image"].voxels * np.float32(1e30))
    error = refused(scan | {("ED", "image"): huge}, folder=tmp_path)
    assert error.problem.startswith("scan p0: intensities reach ") and error.field == "ED image"


def test_a_cohort_of_lv_labels_only_is_read(tmp_path):
    scan = stored(random_case())
    only = {key: replace(f, voxels=np.where(f.voxels == 1, 1, 0).astype(np.uint8)) if key[1] == "mask" else f
            for key, f in scan.items()}
    assert read_scans(tmp_path, only)[0].findings == ()


def test_every_check_passes_a_heart_and_has_a_name():
    assert findings(random_case()) == {} and set(CHECKS) == {"phases", "labels", "volumes", "contrast", "roles"}


@pytest.mark.parametrize("column, other", [("image", "mask"), ("mask", "image")])
def test_one_file_in_two_roles_is_refused(tmp_path, column, other):
    write_folder(tmp_path, [random_case(scan="first")])
    table = (tmp_path / "scans.csv").read_text()
    (tmp_path / "scans.csv").write_text(table.replace(f"first_ES_{column}", f"first_ED_{other}"))
    with pytest.raises(DataError, match="are the same file") as caught:
        read_cohort(tmp_path, "folder")
    assert caught.value.field in ("image", "mask")


# ---------------------------------------------------------------- identity

def test_the_same_voxels_under_two_patients_are_refused_and_under_one_patient_kept(tmp_path):
    cases = [random_case(0, scan="first"), random_case(0, scan="second"), random_case(1, scan="third")]
    write_folder(tmp_path, cases)
    with pytest.raises(DataError) as caught:
        read_cohort(tmp_path, "folder")
    assert caught.value.problem == ("scan first of patient first has the same voxels as scan second of patient second")
    report = read_cohort(tmp_path, "folder", on_bad_case="skip").report
    assert report["status"].tolist() == ["bad", "bad", "read"]  # which of the two is whose cannot be known
    write_folder(tmp_path, [cases[0], replace(cases[1], patient="first"), cases[2]])
    table = read_cohort(tmp_path, "folder").table
    assert table["patient"].tolist() == ["first", "first", "third"]


@pytest.mark.parametrize("write, layout, scans", [(write_mnms2, "mnms2", ("001", "002")),
                                                  (write_acdc, "acdc", ("patient001", "patient002"))])
def test_one_person_with_two_numbers_is_said_in_the_table(tmp_path, write, layout, scans):
    write(tmp_path, [random_case(0, scan=scan) for scan in scans])
    with pytest.raises(DataError, match="has the same voxels"):
        read_cohort(tmp_path, layout)
    if layout == "acdc":
        with (tmp_path / "training/patient002/Info.cfg").open("a") as info:
            info.write("Patient: patient001\n")
    else:
        table = tmp_path / "dataset_information.csv"
        first, *rows = table.read_text().splitlines()
        table.write_text("\n".join([first + ",Patient", *(row + ",001" for row in rows)]))
    assert set(read_cohort(tmp_path, layout).table["patient"]) == {scans[0]}


def test_two_files_under_one_code_are_refused(tmp_path):
    write_mnms(tmp_path, [random_case(scan="A0S9V9")])
    shutil.copytree(tmp_path / "Training", tmp_path / "copy")
    with pytest.raises(DataError, match="2 files are the cine of A0S9V9: Training/Labeled/A0S9V9/A0S9V9_sa.nii.gz, copy"):
        read_cohort(tmp_path, "mnms")


# ---------------------------------------------------------------- folders as people have them

def test_files_may_be_packed_or_not_but_not_both(tmp_path):
    write_acdc(tmp_path, [random_case()])
    for path in sorted(tmp_path.rglob("*.nii.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    with pytest.raises(DataError, match="patient001_frame01.nii.gz and patient001_frame01.nii lie side by side"):
        read_cohort(tmp_path, "acdc")
    for path in tmp_path.rglob("*.nii.gz"):
        path.unlink()
    assert same(read_cohort(tmp_path, "acdc").cases[0], random_case())


def test_a_table_that_names_the_other_ending_is_told_so(tmp_path):
    write_folder(tmp_path, [random_case(scan="first")])
    table = tmp_path / "scans.csv"
    table.write_text(table.read_text().replace("first_ED_image.nii", "first_ED_image.nii.gz"))
    with pytest.raises(DataError, match="no such file .*, but first_ED_image.nii"):
        read_cohort(tmp_path, "folder")


@pytest.mark.parametrize("layout", WRITERS)
def test_hidden_files_are_passed_over_and_links_followed_once(tmp_path, layout):
    """macOS leaves a ._NAME beside every file; a folder may be a link, and a link may lead back up."""
    scan = {"acdc": "patient001", "mnms": "A0S9V9", "mnms2": "001", "folder": "first"}[layout]
    WRITERS[layout](tmp_path / "real", [random_case(scan=scan)])
    for path in [p for p in (tmp_path / "real").rglob("*") if p.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
    source = tmp_path / "source"
    source.mkdir()
    for entry in (tmp_path / "real").iterdir():
        (source / entry.name).symlink_to(entry)
    inner = next(p for p in source.iterdir() if p.is_dir())
    (inner / "again").symlink_to(inner.resolve())
    (source / "split.csv").write_text(f"patient,split\n{scan},train\n")
    add.add_dataset("mine", source, layout, data=tmp_path / "data")
    shutil.rmtree(tmp_path / "real")
    assert same(read_dataset(tmp_path / "data/mine").cases[0], random_case(scan=scan))
    assert not list((tmp_path / "data").rglob("._*")) and not list((tmp_path / "data").rglob("again"))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_semicolons_tabs_and_decimal_commas_are_read(tmp_path, separator):
    write_folder(tmp_path, [random_case(scan="first", covariates={"BMI": 24.5})])
    table = tmp_path / "scans.csv"
    table.write_text(table.read_text().replace(",", separator).replace("24.5", "24,5"))
    assert read_cohort(tmp_path, "folder").cases[0].covariates == {"BMI": 24.5}


@pytest.mark.parametrize("path", ["../outside.nii", "{absolute}/outside.nii", "images/../../outside.nii"])
def test_paths_that_lead_out_of_the_folder(tmp_path, path):
    source = tmp_path / "source"
    write_folder(source, [random_case(scan="first")])
    shutil.copy(source / "images/first_ED_image.nii", tmp_path / "outside.nii")
    table, path = source / "scans.csv", path.format(absolute=tmp_path)
    table.write_text(table.read_text().replace("images/first_ED_image.nii", path))
    with pytest.raises(DataError, match="leads out of the cohort's folder"):
        add.add_dataset("mine", source, "folder", data=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_mnms_with_single_frames_is_sent_to_the_layout_folder(tmp_path):
    write_mnms(tmp_path, [random_case(scan="A0S9V9")])
    home = tmp_path / "Training/Labeled/A0S9V9"
    for path in home.iterdir():
        path.rename(path.with_name(path.name.replace("_sa", "_sa_ED")))
    with pytest.raises(DataError, match="but single frames") as caught:
        read_cohort(tmp_path, "mnms")
    assert "layout 'folder'" in caught.value.remedy
    write_nifti(home / "A0S9V9_sa.nii.gz", random_case().volumes["ED"].image)
    write_nifti(home / "A0S9V9_sa_gt.nii.gz", random_case().volumes["ED"].mask)
    with pytest.raises(DataError, match="4D is due") as caught:
        read_cohort(tmp_path, "mnms")
    assert "layout 'folder'" in caught.value.remedy


# ---------------------------------------------------------------- add: all or nothing

def test_a_read_only_source_leaves_nothing_behind_when_it_fails(tmp_path, monkeypatch):
    source, data = tmp_path / "source", tmp_path / "data"
    write_acdc(source, [random_case()])
    (source / "split.csv").write_text("patient,split\npatient001,train\n")
    folders = [p for p in source.rglob("*") if p.is_dir()]
    for path in source.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    seen = []

    def full(file: Path, text: str) -> None:
        seen.extend(stat.S_IMODE(p.stat().st_mode) & stat.S_IWUSR for p in file.parent.rglob("*"))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(add, "_write", full)
    with pytest.raises(DataError, match="No space left on device"):
        add.add_dataset("mine", source, data=data)
    assert len(seen) > 4 and all(seen)  # so that anybody, not only root, can take it away again
    assert not list(data.iterdir())
    for path in folders:
        path.chmod(0o755)


def test_a_refused_list_of_patients_is_named_where_it_lies(tmp_path):
    source = tmp_path / "source"
    write_folder(source, [random_case(n, scan=f"s{n}") for n in range(2)])
    (source / "split.csv").write_text("patient,split\ns0,train\n")
    with pytest.raises(SplitError) as caught:
        add.add_dataset("mine", source, data=tmp_path / "data")
    assert caught.value.file == str(source / "split.csv") and os.path.isfile(caught.value.file)
    assert not (tmp_path / "data").exists()


def test_a_cohort_without_training_patients_is_refused_at_the_door(tmp_path):
    source = tmp_path / "source"
    write_mnms(source, [random_case(n, scan=f"A{n}S9V9") for n in range(2)], part="Testing")
    with pytest.raises(SplitError) as caught:
        add.add_dataset("mine", source, data=tmp_path / "data")
    assert "none of 2 patients is in train" in caught.value.problem and caught.value.file == source / "split.csv"
    (source / "split.csv").write_text("patient,split\nA0S9V9,train\nA1S9V9,test\n")
    add.add_dataset("mine", source, data=tmp_path / "data")
    assert len(read_dataset(tmp_path / "data/mine").cases) == 2


# ---------------------------------------------------------------- many mutations of known truth

@pytest.mark.usefixtures("alarm")
def test_no_mutation_of_known_truth_is_accepted_in_silence(tmp_path):
    """Four of each kind; ``python tests/cohort/mutations.py`` runs thousands."""
    kinds = len(RESTATED | SPOILT)
    found = outcomes(tmp_path, 4 * kinds)
    assert {outcome for _, outcome in found} == {"as it must be"}, found
    assert len(found) == kinds


@pytest.mark.nightly
def test_ten_thousand_mutations_leave_no_hang_and_no_growth() -> None:
    script = Path(__file__).with_name("mutations.py")
    done = subprocess.run([sys.executable, script, "--count", "10000"], capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
