"""Cardiac function: closed forms, the same values from a stored scan and from its slices, what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cmri_lib.cohort.cardiac_function import (
    areas_mm2, body_surface, case_surface, case_volumes, clinical_indices, ejection_fraction,
    indices_table, myocardial_mass, phenotype_table, volume_ml, wall_thickness_mm, with_phenotypes)
from cmri_lib.cohort.case import LABELS, Case, Volume
from cmri_lib.cohort.preprocessing.pipeline import PreprocessSettings, preprocess
from cmri_lib.cohort.slices import PHENOTYPES, Slices, concatenate
from cmri_lib.errors import DataError
from cmri_lib.phantom.cohort import virtual_patient
from cmri_lib.phantom.disease import Person
from cmri_lib.phantom.scanner import scan
from cmri_lib.phantom.vendors import VENDORS

SIDE, PIXEL, DISTANCE = 96, 1.5, 10.0
WALL = 9.0  # mm
Y, X = (np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2) * PIXEL


def cylinder(radius: float, slices: int = 6) -> np.ndarray:
    """Label map (slices + 2, SIDE, SIDE): an LV of `radius` mm, its wall of `WALL` mm, an RV of 15 mm radius
    beside it, alike on all slices but the first and the last, which are empty."""
    mask = np.zeros((slices + 2, SIDE, SIDE), np.uint8)
    mask[1:-1, np.hypot(Y, X - 50) < 15] = LABELS["RV"]
    mask[1:-1, np.hypot(Y, X) < radius + WALL] = LABELS["Myo"]
    mask[1:-1, np.hypot(Y, X) < radius] = LABELS["LV"]
    return mask


def case(radius: float = 25.0, emptied: float = 0.5, name: str = "p1", **covariates: object) -> Case:
    """A scan whose LV at ES holds the share 1 − `emptied` of its volume at ED."""
    masks = {"ED": cylinder(radius), "ES": cylinder(radius * np.sqrt(1 - emptied))}
    volumes = {phase: Volume(mask.astype(np.float32), mask) for phase, mask in masks.items()}
    return Case(name, name, volumes, (DISTANCE, PIXEL, PIXEL), np.eye(4), "A", covariates=covariates)


def slices_of(*cases: Case) -> Slices:
    """The whole field of view, pixel for pixel."""
    settings = PreprocessSettings(size=max(cases[0].volumes["ED"].mask.shape[1:]), crop="none", jobs=1)
    return preprocess(cases, settings, split={c.patient: "train" for c in cases})


# --- closed forms
def test_a_cylinder_has_its_volume() -> None:
    areas = areas_mm2(cylinder(25.0), "LV", PIXEL**2)
    assert areas[[0, -1]].tolist() == [0, 0] and areas[1:-1] == pytest.approx(np.pi * 25**2, rel=0.01)
    assert volume_ml(areas, DISTANCE) == pytest.approx(np.pi * 25**2 * 60 / 1000, rel=0.01)
    assert volume_ml(np.array([100.0, 300.0]), np.array([10.0, 5.0])) == 2.5
    found = case_volumes(case(25.0))["ED"]
    shell = np.pi * ((25 + WALL)**2 - 25**2) * 60 / 1000
    assert found["Myo"] == pytest.approx(shell, rel=0.02) and found["LV"] == pytest.approx(117.8, rel=0.01)
    assert myocardial_mass(100.0) == pytest.approx(105.0)


def test_a_slice_gap_counts_as_volume() -> None:
    near = case()
    far = replace(near, spacing=(2 * DISTANCE, PIXEL, PIXEL))
    assert case_volumes(far)["ED"]["LV"] == pytest.approx(2 * case_volumes(near)["ED"]["LV"])
    wide = replace(near, spacing=(DISTANCE, PIXEL, 2 * PIXEL))  # pixels need not be square
    assert case_volumes(wide)["ED"]["LV"] == pytest.approx(2 * case_volumes(near)["ED"]["LV"])


def test_ejection_fraction_is_the_share_of_the_volume_that_leaves() -> None:
    assert ejection_fraction(120.0, 48.0) == pytest.approx(0.6) and ejection_fraction(80.0, 80.0) == 0
    both = ejection_fraction(np.array([100.0, 200.0]), np.array([40.0, 150.0]))
    assert both.tolist() == pytest.approx([0.6, 0.25])
    assert np.isnan(ejection_fraction(0.0, 0.0)) and np.isnan(ejection_fraction(np.nan, 10.0))
    indices = clinical_indices(case(25.0, emptied=0.6))
    assert indices["LV EF (%)"] == pytest.approx(60, abs=1.5) and indices["RV EF (%)"] == 0


def test_body_surface_is_that_of_mostellers_nomogram() -> None:
    # Mosteller's nomogram: 180 cm and 80 kg have exactly 2 m².
    assert body_surface(180.0, 80.0) == 2.0 and body_surface(160.0, 57.6) == pytest.approx(1.6)
    assert body_surface(np.array([180, 160]), np.array([80, 90])).tolist() == [2.0, 2.0]
    assert Person("NOR", "M", 50, 180, 80, 70).bsa == 2.0, "the phantom has a formula of its own"
    for height, weight in ((0.0, 80.0), (180.0, -1.0)):
        with pytest.raises(DataError, match="not positive"):
            body_surface(height, weight)


@pytest.mark.parametrize("covariates", [
    {}, {"Height": 180}, {"Height": "", "Weight": 80}, {"Height": 0, "Weight": 80},
    {"Height": None, "Weight": 80}, {"Height": float("nan"), "Weight": 80}])
def test_indices_are_unknown_without_the_size_of_the_body(covariates) -> None:
    unknown = case(**covariates)
    indices = clinical_indices(unknown)
    assert np.isnan(case_surface(unknown)) and np.isnan(indices["LV EDV index (mL/m²)"])
    assert np.isfinite(indices["LV EDV (mL)"])


def test_indices_of_a_person_of_two_square_metres_are_halves() -> None:
    table = indices_table([case(Height=180, Weight="80"), case(20.0, 0.3, "p2", HEIGHT=180, weight=80)])
    assert table["scan"].tolist() == ["p1", "p2"]
    assert table["LV EDV index (mL/m²)"].tolist() == pytest.approx((table["LV EDV (mL)"] / 2).tolist())
    rv = np.pi * 15**2 * 60 / 1000
    assert table["RV EDV index (mL/m²)"].to_numpy() == pytest.approx(rv / 2, rel=0.02)
    shells = [1.05 * np.pi * ((r + WALL)**2 - r**2) * 60 / 1000 for r in (25, 20)]
    assert table["LV mass (g)"].to_numpy() == pytest.approx(shells, rel=0.02)


def test_wall_thickness_is_that_of_the_thickest_place() -> None:
    assert wall_thickness_mm(case(25.0)) == pytest.approx(WALL, abs=PIXEL)
    mask = cylinder(25.0)
    mask[3][(np.hypot(Y, X) < 25 + WALL + 6) & (X < -20) & (mask[3] == 0)] = LABELS["Myo"]
    volume = Volume(mask.astype(np.float32), mask)
    thick = replace(case(), volumes={"ED": volume, "ES": volume})
    assert wall_thickness_mm(thick, "ES") == pytest.approx(WALL + 6, abs=PIXEL)
    mask[3][np.hypot(Y, X) < 25] = 0  # no cavity: an apical slice, where the plane cuts obliquely
    assert wall_thickness_mm(thick, "ES") == pytest.approx(WALL, abs=PIXEL)


# --- one value, from a stored scan and from its slices
def test_slices_measure_what_the_scan_does() -> None:
    cases = [case(25.0, 0.6), case(18.0, 0.25, "p2")]
    table = phenotype_table(slices_of(*cases))
    assert table["patient"].tolist() == ["p1", "p2"] and list(table) == ["patient", "scan", *PHENOTYPES]
    for row, one in zip(table.to_dict("records"), cases):
        stored, indices = case_volumes(one), clinical_indices(one)
        assert row["lvedv"] == stored["ED"]["LV"] == indices["LV EDV (mL)"]
        assert row["lvesv"] == stored["ES"]["LV"]
        assert row["rvedv"] == stored["ED"]["RV"] and row["myoedv"] == stored["ED"]["Myo"]
        assert row["lvef"] == indices["LV EF (%)"] and row["rvef"] == indices["RV EF (%)"]


@pytest.mark.parametrize("number", [2, 4])
def test_a_phantom_scan_and_its_slices_agree(number) -> None:
    scanned = scan(virtual_patient(2026, number), VENDORS["A"], 2026, distance=12.0, resolution=0.5)
    row = phenotype_table(slices_of(scanned)).iloc[0]
    indices = clinical_indices(scanned)
    assert [row["lvef"], row["rvef"], row["lvedv"]] == pytest.approx(
        [indices["LV EF (%)"], indices["RV EF (%)"], indices["LV EDV (mL)"]], rel=1e-9)
    assert myocardial_mass(row["myoedv"]) == pytest.approx(indices["LV mass (g)"], rel=1e-9)


def test_columns_are_alike_in_all_slices_of_a_scan() -> None:
    slices = slices_of(case(25.0, 0.6), case(18.0, 0.25, "p2"))
    order = np.random.default_rng(0).permutation(len(slices))  # a scan need not lie together
    measured = with_phenotypes(slices.take(order)).table
    assert (measured.groupby("scan")[list(PHENOTYPES)].nunique() == 1).all(axis=None)
    expected = phenotype_table(slices).set_index("scan").loc[measured["scan"], list(PHENOTYPES)]
    assert measured[list(PHENOTYPES)].to_numpy() == pytest.approx(expected.to_numpy())
    assert measured["index"].tolist() == slices.table["index"].iloc[order].tolist()


# --- what is not there, and what is wrong
def test_what_is_not_there_has_no_volume() -> None:
    some = slices_of(case(), case(name="p2"))
    absent = ((some.patients == "p2") & (some.table["phase"] == "ES")).to_numpy()
    lone = with_phenotypes(some.take(~absent)).table
    assert lone.loc[lone["patient"] == "p2", ["lvef", "lvesv", "rvef"]].isna().all(axis=None)
    assert lone[["lvedv", "rvedv", "myoedv"]].notna().all(axis=None)
    assert lone.loc[lone["patient"] == "p1", "lvef"].notna().all()
    empty = with_phenotypes(Slices(some.images, np.zeros_like(some.masks), some.table)).table
    assert (empty[["lvedv", "myoedv"]] == 0).all(axis=None) and empty[["lvef", "rvef"]].isna().all(axis=None)
    assert len(phenotype_table(some.take([]))) == 0 and len(with_phenotypes(some.take([]))) == 0


def test_an_empty_right_ventricle_has_no_ejection_fraction() -> None:
    full = case()
    volumes = {phase: Volume(v.image, np.where(v.mask == LABELS["RV"], 0, v.mask))
               for phase, v in full.volumes.items()}
    indices = clinical_indices(replace(full, volumes=volumes))
    assert np.isnan(indices["RV EF (%)"]) and np.isfinite(indices["LV EF (%)"])


def test_bad_slices_are_refused() -> None:
    some = slices_of(case())
    with pytest.raises(DataError, match="more than once"):
        with_phenotypes(concatenate([some, some]))
    for field in ("spacing", "slice_mm"):
        with pytest.raises(DataError, match=field):
            with_phenotypes(some.with_columns(**{field: 0.0}))
