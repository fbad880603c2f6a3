"""What the virtual body is made of: materials, their relaxation times, and the tissue label each belongs to.

A material is finer than a label: the right ventricle's wall and a rib's cortex are drawn and imaged as themselves but
labelled "muscle" and "bone". Papillary muscles and trabeculae image as myocardium and are labelled as cavity, which is
the convention of ACDC and M&Ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from cmri_lib.cohort.case import TISSUES


class Material(IntEnum):
    """Index into every table of materials."""

    AIR = 0
    LV_BLOOD = 1
    RV_BLOOD = 2
    VESSEL_BLOOD = 3
    MYOCARDIUM = 4
    LV_TRABECULA = 5
    RV_TRABECULA = 6
    THIN_WALL = 7
    PERICARDIUM = 8
    HEART_FAT = 9
    BODY_FAT = 10
    LUNG = 11
    LUNG_VESSEL = 12
    MUSCLE = 13
    CORTEX = 14
    MARROW = 15
    LIVER = 16
    LIVER_VESSEL = 17
    STOMACH_WALL = 18
    STOMACH_CONTENT = 19
    SPLEEN = 20
    SCAR = 21


@dataclass(frozen=True)
class Relaxation:
    """T1 and T2 in ms at 1.5 T and at 3 T, relative proton density, and the part of the protons that are fat."""

    t1: tuple[float, float]
    t2: tuple[float, float]
    density: float
    is_fat: bool = False


# Values near Stanisz et al., Magn Reson Med 54:507 (2005), and de Bazelaire et al., Radiology 230:652 (2004); blood of
# the right heart is deoxygenated and so has the shorter T2 (Wright et al., J Magn Reson Imaging 1:275, 1991).
RELAXATION: dict[Material, Relaxation] = {
    Material.AIR: Relaxation((1000, 1000), (10, 10), 0.0),
    Material.LV_BLOOD: Relaxation((1440, 1930), (260, 210), 0.95),
    Material.RV_BLOOD: Relaxation((1440, 1930), (180, 125), 0.95),
    Material.VESSEL_BLOOD: Relaxation((1440, 1930), (240, 190), 0.95),
    Material.MYOCARDIUM: Relaxation((1030, 1300), (48, 45), 0.80),
    Material.LV_TRABECULA: Relaxation((1030, 1300), (50, 46), 0.80),
    Material.RV_TRABECULA: Relaxation((1030, 1300), (50, 46), 0.80),
    Material.THIN_WALL: Relaxation((1030, 1300), (48, 45), 0.80),
    Material.PERICARDIUM: Relaxation((900, 1100), (25, 22), 0.45),
    Material.HEART_FAT: Relaxation((300, 370), (80, 72), 0.72, True),
    Material.BODY_FAT: Relaxation((270, 350), (85, 75), 0.82, True),
    Material.LUNG: Relaxation((1200, 1270), (35, 28), 0.28),
    Material.LUNG_VESSEL: Relaxation((1440, 1930), (180, 150), 0.80),
    Material.MUSCLE: Relaxation((1008, 1412), (40, 36), 0.75),
    Material.CORTEX: Relaxation((800, 900), (12, 10), 0.25),
    Material.MARROW: Relaxation((550, 590), (55, 50), 0.65),
    Material.LIVER: Relaxation((586, 812), (46, 36), 0.80),
    Material.LIVER_VESSEL: Relaxation((1440, 1930), (160, 120), 0.90),
    Material.STOMACH_WALL: Relaxation((1000, 1300), (50, 45), 0.78),
    Material.STOMACH_CONTENT: Relaxation((1200, 1500), (140, 130), 0.85),
    Material.SPLEEN: Relaxation((1060, 1330), (75, 62), 0.85),
    Material.SCAR: Relaxation((1120, 1400), (58, 52), 0.80),
}

_TISSUE_OF = {
    Material.LV_BLOOD: "LV", Material.LV_TRABECULA: "LV", Material.MYOCARDIUM: "Myo", Material.SCAR: "Myo",
    Material.RV_BLOOD: "RV", Material.RV_TRABECULA: "RV", Material.VESSEL_BLOOD: "blood", Material.LUNG_VESSEL: "lung",
    Material.THIN_WALL: "muscle", Material.PERICARDIUM: "fat", Material.HEART_FAT: "fat", Material.BODY_FAT: "fat",
    Material.LUNG: "lung", Material.MUSCLE: "muscle", Material.CORTEX: "bone", Material.MARROW: "bone",
    Material.LIVER: "liver", Material.LIVER_VESSEL: "liver", Material.STOMACH_WALL: "stomach",
    Material.STOMACH_CONTENT: "stomach", Material.SPLEEN: "liver",
}

#: (materials,) uint8: the label of `TISSUES` of every material; the spleen counts as liver, air as 0.
TISSUE_LABEL = np.array([TISSUES[_TISSUE_OF[m]] if m in _TISSUE_OF else 0 for m in Material], np.uint8)
#: (materials,) bool: moving blood, which makes flow artefacts.
IS_BLOOD = np.array([m in (Material.LV_BLOOD, Material.RV_BLOOD, Material.VESSEL_BLOOD) for m in Material])
