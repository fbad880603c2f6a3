"""The phantom cohort: physics against closed forms, anatomy against its own truth, files bit for bit."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.linalg import expm

from cmri_lib.cohort.case import LABELS, PHASES, TISSUES, Case
from cmri_lib.cohort.readers.cases import read_cohort
from cmri_lib.errors import ParameterError
from cmri_lib.phantom import cohort
from cmri_lib.phantom.cohort import SEED, examinations, truth, write_case, write_cohort
from cmri_lib.phantom.disease import DISEASES, draw_person, violations
from cmri_lib.phantom.rendering import render
from cmri_lib.phantom.scanner import bssfp_signal, sample_kspace, scan, slice_positions
from cmri_lib.phantom.tissue import RELAXATION, TISSUE_LABEL, Material
from cmri_lib.phantom.vendors import VENDORS

#: The same patient is asked for by several tests, and none changes what it is given.
virtual_patient = cache(cohort.virtual_patient)
SHIPPED = Path(__file__).resolve().parents[2] / "data" / "phantom"


# --- physics
def bloch_steady_state(t1: float, t2: float, flip: float, tr: float, off_resonance: float) -> complex:
    """Transverse magnetisation at TR/2 by solving M = R(free precession over TR, RF) M for its fixed point."""
    def free(duration: float) -> tuple[np.ndarray, np.ndarray]:
        omega = 2e-3 * np.pi * off_resonance
        generator = np.zeros((4, 4))  # d(M, 1)/dt in homogeneous coordinates
        generator[:3, :3] = [[-1 / t2, omega, 0], [-omega, -1 / t2, 0], [0, 0, -1 / t1]]
        generator[2, 3] = 1 / t1
        step = expm(generator * duration)
        return step[:3, :3], step[:3, 3]

    alpha = np.radians(flip)
    pulse = np.array([[1, 0, 0], [0, np.cos(alpha), np.sin(alpha)], [0, -np.sin(alpha), np.cos(alpha)]])
    alternate = np.diag([-1.0, -1.0, 1.0])  # the frame turns by π with the phase of the next pulse
    decay, recovery = free(tr)
    matrix, offset = pulse @ alternate @ decay, pulse @ alternate @ recovery
    after = np.linalg.solve(np.eye(3) - matrix, offset)
    decay, recovery = free(tr / 2)
    echo = decay @ after + recovery
    return complex(echo[0], echo[1])


@pytest.mark.parametrize("off_resonance", [0.0, 40.0, -90.0, 140.0, 220.0])
@pytest.mark.parametrize(("t1", "t2", "flip", "tr"), [(1440, 260, 52, 3.1), (1030, 48, 60, 3.5), (350, 75, 36, 2.9)])
def test_bssfp_agrees_with_the_bloch_equations(t1, t2, flip, tr, off_resonance):
    signal = bssfp_signal(t1, t2, 1.0, flip, tr, off_resonance)
    expected = bloch_steady_state(t1, t2, flip, tr, off_resonance)
    assert abs(signal) == pytest.approx(abs(expected), rel=1e-9)
    # phase relative to a spin near resonance, up to the handedness of the frame
    relative = np.angle(signal / bssfp_signal(t1, t2, 1.0, flip, tr, 10.0))
    simulated = np.angle(expected / bloch_steady_state(t1, t2, flip, tr, 10.0))
    assert np.cos(relative) == pytest.approx(np.cos(simulated), abs=1e-6)


def test_fat_opposes_water_and_blood_outshines_muscle():
    for vendor in VENDORS.values():
        field = 0 if vendor.field < 2 else 1
        def at(m, hertz=0.0):
            r = RELAXATION[m]
            return bssfp_signal(r.t1[field], r.t2[field], r.density, vendor.flip, vendor.tr, hertz)
        blood, muscle = at(Material.LV_BLOOD), at(Material.MYOCARDIUM)
        assert 1.8 < abs(blood / muscle) < 4.0
        assert np.real(at(Material.BODY_FAT, -147.0 * vendor.field) / blood) < 0  # the dark rim of bSSFP


def test_noise_in_air_is_rayleigh():
    rng, sigma = np.random.default_rng(0), 0.3
    vendor = replace(VENDORS["A"], apodisation=0.3)
    image = sample_kspace(np.zeros((256, 256), complex), vendor, (128, 128), sigma, (0.0, 0.3), rng)
    assert image.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.02)
    assert image.std() == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.03)


def test_kspace_keeps_a_uniform_signal():
    signal = np.full((200, 160), 2.0 + 0j)
    image = sample_kspace(signal, VENDORS["C"], (100, 80), 0.0, (0.0, 0.3), np.random.default_rng(0))
    assert np.allclose(image, 2.0, atol=1e-9)


def test_ghost_is_a_displaced_copy():
    signal = np.zeros((256, 256), complex)
    signal[100:110, 120:130] = 1
    clean, ghosted = (sample_kspace(signal, VENDORS["C"], (128, 128), 0.0, (a, 0.25), np.random.default_rng(0))
                      for a in (0.0, 0.2))
    assert ghosted[50 + 32:55 + 32, 60:65].mean() == pytest.approx(0.1 * clean[50:55, 60:65].mean(), rel=0.15)


# --- anatomy
def test_every_patient_is_inside_the_definition_of_the_group():
    groups = []
    for anatomy in (virtual_patient(SEED, n) for n in sorted({number for number, *_ in examinations(120, 10)})):
        ed = anatomy.phases["ED"]
        assert not violations(anatomy.person, ed.lv_volume, anatomy.lvef, ed.rv_volume, anatomy.rvef,
                              anatomy.wall_thickness), anatomy.number
        groups.append(anatomy.person.disease)
    assert {group: groups.count(group) for group in DISEASES} == dict.fromkeys(DISEASES, 26) and len(groups) == 130


def test_covariates_act_on_the_anatomy():
    anatomies = [virtual_patient(SEED, n, "NOR") for n in range(1, 81)]
    bmi = [a.person.bmi for a in anatomies]
    assert np.corrcoef(bmi, [a.surroundings.fat for a in anatomies])[0, 1] > 0.5
    assert np.corrcoef([a.person.bsa for a in anatomies], [a.phases["ED"].lv_volume for a in anatomies])[0, 1] > 0.5
    assert np.corrcoef([a.person.age for a in anatomies], [a.wall_thickness for a in anatomies])[0, 1] > 0.1


def test_myocardium_is_incompressible():
    for number in range(1, 11):
        ed, es = (virtual_patient(SEED, number).phases[p] for p in PHASES)
        assert es.myocardial_volume == pytest.approx(ed.myocardial_volume, rel=0.005)
        assert es.apex == ed.apex and es.base > ed.base  # the base descends to a fixed apex


def test_scar_is_thin_and_does_not_contract():
    for number in (3, 8, 13):
        anatomy = virtual_patient(SEED, number, "MINF")
        ed, es = anatomy.phases["ED"], anatomy.phases["ES"]
        inward = 1 - (es.endo / np.maximum(ed.endo, 1e-6))[20:60].mean(0)
        wall = (ed.epi - ed.endo)[20:60].mean(0)
        worst = np.argsort(inward)[:18]  # a tenth of the circumference
        assert inward[worst].mean() < 0.5 * inward.max()
        assert wall[worst].mean() < 0.9 * wall.max()


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_masks_measure_what_the_anatomy_says(number):
    anatomy = virtual_patient(SEED, number)
    case = scan(anatomy, replace(VENDORS["A"], thickness=3.0), SEED, distance=9.0)
    true = truth(anatomy)
    voxel = np.prod(case.spacing) / 1000
    lv = {p: (case.volumes[p].mask == LABELS["LV"]).sum() * voxel for p in PHASES}
    assert lv["ED"] == pytest.approx(true["LVEDV"], rel=0.075)
    assert 100 * (1 - lv["ES"] / lv["ED"]) == pytest.approx(true["LVEF"], abs=5)


# --- cohort
def test_one_patient_twice_is_byte_identical(tmp_path):
    files = []
    for run in ("first", "second"):
        write_case(scan(cohort.virtual_patient(SEED, 7), "B", SEED, resolution=0.5), tmp_path / run)
        files.append({p.name: p.read_bytes() for p in sorted((tmp_path / run).rglob("*.nii.gz"))})
    assert len(files[0]) == 3 and files[0] == files[1]


def test_the_cohort_does_not_depend_on_its_size_or_processes(tmp_path):
    write_cohort(tmp_path / "a", patients=2, paired=0, resolution=0.5, processes=1)
    write_cohort(tmp_path / "b", patients=3, paired=0, resolution=0.5, processes=2)
    for name in ("P001/P001_sa.nii.gz", "P002/P002_sa_gt.nii.gz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.skipif(not (SHIPPED / "phantom.csv").exists(), reason="the shipped cohort is not pulled")
def test_the_shipped_cohort_can_be_made_again(tmp_path):
    write_cohort(tmp_path, patients=1, paired=0)
    for name in ("P001_sa", "P001_sa_gt", "P001_sa_tissues"):
        made, shipped = (np.asarray(nib.load(f / "P001" / f"{name}.nii.gz").dataobj) for f in (tmp_path, SHIPPED))
        assert np.array_equal(made, shipped)


@pytest.fixture(scope="module")
def five_scans(tmp_path_factory) -> tuple[pd.DataFrame, dict[str, Case]]:
    """One patient scanned once and one scanned by every vendor, written and read again: the table, and scan → case."""
    folder = tmp_path_factory.mktemp("phantom")
    written = write_cohort(folder, patients=1, paired=1, processes=1)
    return written, {case.scan: case for case in read_cohort(folder, layout="mnms").cases}


def test_scans_lie_in_the_layout_of_mnms_with_labels_and_tissues(five_scans):
    written, cases = five_scans
    assert sorted(cases) == ["P001", "P002A", "P002B", "P002C", "P002D"]
    assert {c.patient for c in cases.values()} == {"P001", "P002"}
    for row in written.itertuples():
        case, vendor = cases[row._1], VENDORS[row.Vendor]
        assert case.spacing == pytest.approx((9.6 if "2" in row._1 else vendor.distance, vendor.pixel, vendor.pixel))
        assert case.volumes["ED"].image.shape[1:] == vendor.matrix
        assert row.Centre in vendor.centres
    both = np.concatenate([v.tissues.ravel() for c in cases.values() for v in c.volumes.values()])
    assert set(np.unique(both)) == {0, *TISSUES.values()}
    for volume in cases["P001"].volumes.values():
        assert set(np.unique(volume.mask)) == {0, 1, 2, 3}
        assert np.array_equal(np.where(volume.tissues <= 3, volume.tissues, 0), volume.mask)


def test_the_same_anatomy_has_the_same_masks_under_four_vendors_and_other_images(five_scans):
    cases = [five_scans[1][f"P002{vendor}"] for vendor in VENDORS]

    def common(volume: np.ndarray, case) -> np.ndarray:
        grid = np.arange(-90, 90, 1.5)
        rows, columns = (np.rint(grid / case.spacing[1] + n / 2 - 0.5).astype(int) for n in volume.shape[1:])
        return volume[:, rows][:, :, columns]

    masks = [common(c.volumes["ED"].mask, c) for c in cases]
    images = [common(c.volumes["ED"].image, c) for c in cases]
    for mask, image in zip(masks[1:], images[1:]):
        for label in LABELS.values():
            a, b = masks[0] == label, mask == label
            assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.9
        assert 0.5 < np.corrcoef(images[0].ravel(), image.ravel())[0, 1] < 0.995


def test_planes_hold_every_part_of_the_chest():
    x, y = np.meshgrid(np.arange(-110, 110, 2.0), np.arange(-110, 110, 2.0))
    seen = set()
    for number in range(1, 9):
        anatomy = virtual_patient(SEED, number)
        for z in slice_positions(anatomy, 12.0):
            seen |= set(np.unique(render(anatomy, float(z), 8.0, x, y, 1, ("ED",))["ED"].materials))
    assert seen == set(Material)
    assert set(TISSUE_LABEL[list(seen)]) == {0, *TISSUES.values()}


def test_a_stack_of_thin_slices_covers_as_much_of_the_heart():
    largest = max((virtual_patient(SEED, n) for n in range(1, 131)), key=lambda a: a.phases["ED"].apex)
    for anatomy in (virtual_patient(SEED, 1), largest):
        usual = slice_positions(anatomy, 10.0)
        assert len(usual) <= 11
        for distance in (4.0, 5.0, 8.0):
            places = slice_positions(anatomy, distance)
            assert np.allclose(np.diff(places), distance)
            end = min(anatomy.phases["ED"].apex, anatomy.first_slice * distance + 110)
            assert places[-1] + 2 * distance >= end, "the apex is lost"
    with pytest.raises(ParameterError, match="(?s)slices at a distance.*larger"):
        slice_positions(largest, 2.0)


def test_a_patient_has_one_name_in_a_cohort_of_any_size():
    large = {number: name for number, name, _ in examinations(1200, 0)}
    assert [large[n] for n in (7, 130, 1000)] == ["P007", "P130", "P1000"] and len(set(large.values())) == 1200
    assert all(dict((number, name) for number, name, _ in examinations(10, 0))[n] == large[n] for n in (1, 10))
    assert scan(virtual_patient(SEED, 1007), "A", SEED, resolution=0.25).patient == large[1007]


# --- bad input
@pytest.mark.parametrize("call", [
    lambda: virtual_patient(SEED, 1, "FLU"), lambda: virtual_patient(SEED, -1), lambda: draw_person(None, "flu"),
    lambda: scan(virtual_patient(SEED, 1), "Z", SEED), lambda: scan(virtual_patient(SEED, 1), "A", SEED, distance=0),
    lambda: scan(virtual_patient(SEED, 1), "A", SEED, resolution=-1), lambda: bssfp_signal(1000, -50, 1, 50, 3),
    lambda: bssfp_signal(1000, 50, 1, 200, 3), lambda: examinations(0, 0), lambda: write_cohort("unused", resolution=0),
    lambda: sample_kspace(np.zeros((8, 8), complex), VENDORS["A"], (16, 16), 0.1, (0, 0), np.random.default_rng(0))])
def test_bad_arguments_are_refused(call):
    with pytest.raises(ParameterError) as error:
        call()
    assert "Remedy" in str(error.value)
