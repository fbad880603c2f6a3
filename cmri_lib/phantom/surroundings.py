"""What surrounds the heart in a short-axis plane: chest wall, lungs, diaphragm and the organs under it, aorta, spine.

Coordinates are mm in the plane, x to the right and y down as the stored image is shown, about the axis of the left
ventricle at the base; z runs along that axis to the apex. Organs are implicit shapes painted back to front.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cmri_lib.phantom.disease import Person
from cmri_lib.phantom.tissue import Material

#: noise(scale in mm, offset) → array like x: smooth noise of unit variance fixed to the patient.
Noise = Callable[[float, float], np.ndarray]


@dataclass(frozen=True)
class Surroundings:
    """Lengths in mm, angles in radians.

    Attributes:
        thorax: (left, right, top, bottom) of the inner chest wall at the base; `approach`: mm per mm by which its left
            and top sides near the heart towards the apex. `squareness`: exponent of the outline. `rotation`: of all.
        fat, muscle: thickness of the layers of the chest wall. `ribs`: (number around the chest, phase, share of bone).
        diaphragm: (distance under the axis, slope, curvature, rise per mm towards the apex).
        liver: (right end, thickness, undulation). `stomach`, `spleen`: (x, depth under the diaphragm, width, height).
        gas: share of the stomach that is gas. `bowel`: threshold of the patchwork of the remaining abdomen.
        aorta: (x, y, radius), None if out of the plane. `spine`: (x, y, radius). `vessels`: threshold of lung vessels.
        fat_pad: (thickness, angle, angular width) of fat outside the pericardium. `breast`: further fat in front.
    """

    thorax: tuple[float, float, float, float]
    approach: tuple[float, float]
    squareness: float
    rotation: float
    fat: float
    muscle: float
    ribs: tuple[int, float, float]
    diaphragm: tuple[float, float, float, float]
    liver: tuple[float, float, float]
    stomach: tuple[float, float, float, float]
    gas: float
    spleen: tuple[float, float, float, float]
    bowel: float
    aorta: tuple[float, float, float] | None
    spine: tuple[float, float, float]
    vessels: float
    fat_pad: tuple[float, float, float]
    breast: float


def draw_surroundings(rng: np.random.Generator, person: Person, lv_radius: float, rv_radius: float) -> Surroundings:
    """The chest of `person` about a heart that reaches `lv_radius` mm to the right and `rv_radius` mm to the left."""
    uniform, normal = rng.uniform, rng.normal
    obesity = np.clip((person.bmi - 18) / 16, 0, 1.4)
    male = person.sex == "M"
    aorta = (uniform(5, 50), lv_radius + uniform(8, 40), uniform(8, 12.5) + 0.03 * (person.age - 45))
    return Surroundings(
        thorax=(-rv_radius - uniform(-6, 18), lv_radius + uniform(35, 110), -lv_radius - uniform(22, 80),
                uniform(110, 180)),
        approach=(uniform(0.1, 0.55), uniform(0.0, 0.45)), squareness=uniform(2.0, 3.2),
        rotation=np.radians(normal(-4, 13)),
        fat=float(np.clip(3 + 24 * obesity * uniform(0.5, 1.2) + normal(0, 2), 2, 45)),
        muscle=uniform(5, 13) + 3 * male, ribs=(int(rng.integers(9, 20)), uniform(0, 2 * np.pi), uniform(0.1, 0.5)),
        diaphragm=(lv_radius + uniform(-6, 7) - 4 * obesity, uniform(-0.45, 0.3), uniform(-0.001, 0.004),
                   uniform(0.0, 0.3)),
        liver=(uniform(-30, 70), uniform(18, 90), uniform(0, 5)),
        stomach=(uniform(5, 80), uniform(5, 45), uniform(14, 42), uniform(10, 32)),
        gas=uniform(0, 1) * (rng.random() < 0.6),
        spleen=(uniform(60, 120), uniform(5, 50), uniform(14, 30), uniform(18, 40)),
        bowel=uniform(-0.8, 0.8), aorta=aorta if rng.random() < 0.6 else None,
        spine=(uniform(50, 120), lv_radius + uniform(35, 90), uniform(17, 24)), vessels=uniform(1.7, 3.0),
        fat_pad=(uniform(0, 26) * (0.4 + obesity), normal(-2.4, 1.0), uniform(0.5, 1.6)),
        breast=0.0 if male else uniform(0, 20) * (0.4 + obesity))


def paint_surroundings(s: Surroundings, x: np.ndarray, y: np.ndarray, z: float, noise: Noise) -> np.ndarray:
    """Materials (H, W) uint8 of the plane at `z` without the heart; x, y (H, W) in mm."""
    c, d = np.cos(s.rotation), np.sin(s.rotation)
    x, y = c * x + d * y, -d * x + c * y
    rough = noise(28.0, 0.0)
    depth, around = _chest_depth(s, x, y, z)
    material = np.full(x.shape, Material.LUNG, np.uint8)
    material[noise(2.6, 7.0) > s.vessels] = Material.LUNG_VESSEL
    _paint_back(s, material, x, y)
    _paint_abdomen(s, material, x, y, z, rough, noise)
    _paint_chest_wall(s, material, depth + 1.2 * rough, around + 0.09 * rough)
    return material


def _chest_depth(s: Surroundings, x: np.ndarray, y: np.ndarray, z: float) -> tuple[np.ndarray, np.ndarray]:
    """Approximate distance in mm outside the inner chest wall (negative inside), and the angle about the chest."""
    left, right, top, bottom = s.thorax
    left, top = left + s.approach[0] * z, top + s.approach[1] * z
    cx, cy, a, b = (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2
    px, py = (x - cx) / a, (y - cy) / b
    rho = (np.abs(px) ** s.squareness + np.abs(py) ** s.squareness) ** (1 / s.squareness)
    radius = np.hypot(x - cx, y - cy)
    return radius * (1 - 1 / np.maximum(rho, 1e-3)), np.arctan2(py, px)


def _paint_chest_wall(s: Surroundings, material: np.ndarray, depth: np.ndarray, around: np.ndarray) -> None:
    front = np.clip(np.cos(around + 2.4), 0, None) ** 2  # upper left is the front of the chest
    skin = s.muscle + s.fat + s.breast * front
    material[depth > -1.2] = Material.BODY_FAT
    material[depth > 0] = Material.MUSCLE
    number, phase, share = s.ribs
    along = np.cos(number * around + phase) - (1 - 2 * share)
    across = 1 - np.abs(depth - 0.45 * s.muscle) / (0.42 * s.muscle)
    bone = np.minimum(along, across)
    material[bone > 0] = Material.CORTEX
    material[bone > 0.25] = Material.MARROW
    material[(np.abs(depth - 0.9 * s.muscle) < 0.06 * s.muscle) & (along < 0)] = Material.BODY_FAT
    material[depth > s.muscle] = Material.BODY_FAT
    material[depth > skin] = Material.MUSCLE
    material[depth > skin + 1.5] = Material.AIR


def _paint_back(s: Surroundings, material: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    """Spine, descending aorta and the fat between them."""
    sx, sy, sr = s.spine
    spine = np.hypot((x - sx) / 1.1, y - sy)
    material[spine < sr + 8] = Material.MUSCLE
    material[spine < sr] = Material.CORTEX
    material[spine < sr - 1.5] = Material.MARROW
    if s.aorta is not None:
        ax, ay, ar = s.aorta
        aorta = np.hypot(x - ax, y - ay)
        material[aorta < ar + 6] = Material.BODY_FAT
        material[aorta < ar + 1.5] = Material.THIN_WALL
        material[aorta < ar] = Material.VESSEL_BLOOD


def _paint_abdomen(s: Surroundings, material: np.ndarray, x: np.ndarray, y: np.ndarray, z: float,
                   rough: np.ndarray, noise: Noise) -> None:
    """Liver, stomach, spleen and bowel under the diaphragm."""
    distance, slope, curvature, rise = s.diaphragm
    under = y - (distance + slope * x + curvature * x**2 - rise * z) - 1.5 * rough
    inside = under > 0
    patch = noise(14.0, 3.0)
    organ = np.full(x.shape, Material.BODY_FAT, np.uint8)
    organ[patch > s.bowel] = Material.STOMACH_WALL
    organ[patch > s.bowel + 0.5] = Material.STOMACH_CONTENT
    sx, sd, sw, sh = s.spleen
    organ[np.hypot((x - sx) / sw, (under - sd) / sh) < 1 + 0.1 * rough] = Material.SPLEEN
    gx, gd, gw, gh = s.stomach
    stomach = np.hypot((x - gx) / gw, (under - gd - 0.3 * gh) / gh) - 0.12 * rough
    organ[stomach < 1] = Material.STOMACH_WALL
    organ[stomach < 1 - 3.5 / min(gw, gh)] = Material.STOMACH_CONTENT
    organ[(stomach < 1 - 3.5 / min(gw, gh)) & ((under - gd) / gh < 2 * s.gas - 1)] = Material.AIR
    end, thickness, wave = s.liver
    liver = np.minimum(end + wave * rough - x, thickness * np.clip((end - x) / 60, 0.15, 1) + wave * rough - under)
    organ[(liver > 0) & (under > 2)] = Material.LIVER
    organ[(liver > 4) & (noise(9.0, 11.0) > 1.75)] = Material.LIVER_VESSEL
    organ[under < 1.8] = Material.MUSCLE
    material[inside] = organ[inside]
