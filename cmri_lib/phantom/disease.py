"""Virtual persons and what their hearts must measure: the five ACDC groups and the covariates that shape them.

Definitions of the groups: Bernard et al., IEEE TMI 37:2514 (2018), section III.A. Sizes of healthy hearts by sex and
age: near Petersen et al., J Cardiovasc Magn Reson 19:18 (2017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmri_lib.cohort.cardiac_function import body_surface
from cmri_lib.errors import ParameterError

DISEASES = ("NOR", "DCM", "HCM", "MINF", "RV")


@dataclass(frozen=True)
class Person:
    """Covariates: age in years, height in cm, weight in kg, heart rate per minute, sex "M" or "F"."""

    disease: str
    sex: str
    age: int
    height: int
    weight: int
    heart_rate: int

    @property
    def bmi(self) -> float:
        """Body mass index, kg/m²."""
        return self.weight / (self.height / 100) ** 2

    @property
    def bsa(self) -> float:
        """Body surface area in m²."""
        return float(body_surface(self.height, self.weight))


@dataclass(frozen=True)
class Targets:
    """What the anatomy is solved for. Volumes in mL, fractions in 0–1, thickness in mm, angles in radians about the LV
    axis from the middle of the septum.

    Attributes:
        wall: mean diastolic wall thickness; `bump`: (extra thickness as a factor, angle, angular width) of hypertrophy.
        scar: (angle, angular width, first level, last level, thinning factor) of an infarct, None without one.
        elongation: LV length over its radius; `septal_flattening`: 0 round … 0.3 D-shaped.
    """

    lvedv: float
    lvef: float
    rvedv: float
    rvef: float
    wall: float
    bump: tuple[float, float, float]
    scar: tuple[float, float, float, float, float] | None
    elongation: float
    septal_flattening: float


def draw_person(rng: np.random.Generator, disease: str) -> Person:
    """A person of the group; ages and sexes are drawn as the groups are met in clinics.

    Raises:
        ParameterError: if `disease` is not one of `DISEASES`.
    """
    if disease not in DISEASES:
        raise ParameterError(f"unknown disease {disease!r}", field="disease", remedy=f"choose among {DISEASES}")
    mean_age = {"NOR": 46, "DCM": 55, "HCM": 54, "MINF": 60, "RV": 42}[disease]
    male = rng.random() < {"NOR": 0.5, "DCM": 0.65, "HCM": 0.6, "MINF": 0.75, "RV": 0.5}[disease]
    age = int(np.clip(rng.normal(mean_age, 13), 19, 85))
    height = int(np.clip(rng.normal(177 if male else 164, 7), 148, 200))
    bmi = np.clip(rng.normal(25.5 + 0.03 * (age - 50), 4.2), 17.5, 40)
    rate = int(np.clip(rng.normal({"DCM": 76, "MINF": 72}.get(disease, 67), 10), 46, 110))
    return Person(disease, "M" if male else "F", age, height, int(round(bmi * (height / 100) ** 2)), rate)


def _healthy_lv_index(rng: np.random.Generator, person: Person) -> float:
    """LVEDV / BSA in mL/m²: smaller in women, with age and with a fast heart (shorter filling)."""
    index = rng.normal(76 if person.sex == "M" else 68, 7) - 0.12 * (person.age - 45) - 0.12 * (person.heart_rate - 66)
    return float(np.clip(index, 52, 85 if person.sex == "M" else 76))


def draw_targets(rng: np.random.Generator, person: Person) -> Targets:
    """Volumes, fractions and wall of `person`, inside the definition of the group."""
    uniform, male = rng.uniform, person.sex == "M"
    lv_index, lvef = _healthy_lv_index(rng, person), uniform(0.53, 0.70)
    rv_index, rvef = np.clip(lv_index * uniform(0.85, 1.2), 45, 95), uniform(0.46, 0.70)
    usual = (8.3 if male else 7.4) + 0.025 * (person.age - 45) + 0.06 * (person.bmi - 25)
    wall = np.clip(usual + rng.normal(0, 0.8), 5.4, 10.1)
    bump, scar, flattening = (uniform(0, 0.12), uniform(-1, 1), 0.9), None, uniform(0, 0.08)
    elongation = uniform(3.1, 3.9)
    if person.disease == "DCM":
        lv_index, lvef, elongation = uniform(108, 172), uniform(0.12, 0.37), uniform(2.6, 3.2)
        rv_index, rvef = uniform(45, 88), uniform(0.42, 0.66)
    elif person.disease == "HCM":
        lv_index, lvef = np.clip(lv_index * uniform(0.8, 1.12), 48, 90), uniform(0.58, 0.78)
        rv_index, wall = uniform(42, 78), uniform(9, 13)
        widest = uniform(16.5, 25) / wall - 1
        bump = (widest, rng.normal(0.2, 0.6), uniform(0.7, 1.6))
    elif person.disease == "MINF":
        lv_index, lvef = uniform(72, 128), uniform(0.18, 0.38)
        rv_index = uniform(42, 80)
        first = uniform(0.0, 0.3)
        scar = (uniform(-np.pi, np.pi), uniform(0.8, 1.5), first, first + uniform(0.4, 0.9), uniform(0.45, 0.7))
        elongation = uniform(2.8, 3.5)
    elif person.disease == "RV":
        lv_index, lvef = np.clip(lv_index * uniform(0.75, 1.05), 45, 80), uniform(0.46, 0.66)
        flattening = uniform(0, 0.22)
        dilated = rng.random() < 0.8
        rv_index = uniform(114, 170) if dilated else uniform(80, 105)
        rvef = uniform(0.2, 0.56) if dilated else uniform(0.16, 0.37)
    bsa = person.bsa
    return Targets(float(lv_index * bsa), float(lvef), float(rv_index * bsa), float(rvef), float(wall),
                   bump, scar, float(elongation), float(flattening))


def violations(person: Person, lvedv: float, lvef: float, rvedv: float, rvef: float, wall: float) -> list[str]:
    """What contradicts the ACDC definition of the person's group; empty if nothing does.

    Volumes in mL, fractions in 0–1, `wall` the largest diastolic thickness in mm. Bernard et al. (2018), III.A.
    """
    lv_index, rv_index = lvedv / person.bsa, rvedv / person.bsa
    rules = {
        "NOR": {"LVEF > 50 %": lvef > 0.5, "wall < 12 mm": wall < 12, "RV EF > 40 %": rvef > 0.4,
                "LVEDV index": lv_index < (90 if person.sex == "M" else 80), "RVEDV index < 100": rv_index < 100},
        "DCM": {"LVEF < 40 %": lvef < 0.4, "LVEDV index > 100": lv_index > 100, "wall < 12 mm": wall < 12},
        "HCM": {"LVEF > 55 %": lvef > 0.55, "a segment > 15 mm": wall > 15},
        "MINF": {"LVEF < 40 %": lvef < 0.4},
        "RV": {"RV dilated or failing": rv_index > 110 or rvef < 0.4},
    }
    return [rule for rule, holds in rules[person.disease].items() if not holds]
