"""A plane through a virtual patient: which material lies where, at a resolution finer than any scanner's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from cmri_lib.errors import ParameterError
from cmri_lib.phantom.anatomy import ANGLES, Anatomy, HeartPhase
from cmri_lib.phantom.surroundings import Noise, paint_surroundings
from cmri_lib.phantom.tissue import Material

_PADDING_MM = 34.0  # how far epicardial fat and fat pads may reach beyond the heart


@dataclass(frozen=True)
class Plane:
    """Materials (sub-slices, H, W) uint8 through the thickness of one slice and their grain (H, W), unit variance."""

    materials: np.ndarray
    grain: np.ndarray


def noise_in_plane(texture: np.ndarray, x: np.ndarray, y: np.ndarray, z: float) -> Noise:
    """The patient's noise as a function of scale (mm per cell) and offset (a different field each), at (x, y, z)."""
    n = texture.shape[0]

    def noise(scale: float, offset: float) -> np.ndarray:
        depth = (z / scale + 5.37 * offset) % n
        k = int(depth)
        layer = (1 - depth + k) * texture[k % n] + (depth - k) * texture[(k + 1) % n]
        # a mean of two independent neighbours has less variance than either; undo it so that thresholds hold
        layer = layer / max(float(layer.std()), 1e-6)
        return map_coordinates(layer, [(y / scale + 3.1 * offset) % n, (x / scale + 7.7 * offset) % n],
                               order=1, mode="grid-wrap")

    return noise


def render(anatomy: Anatomy, z: float, thickness: float, x: np.ndarray, y: np.ndarray, sub_slices: int = 3,
           phases: tuple[str, ...] = ("ED", "ES")) -> dict[str, Plane]:
    """The slice at `z` mm along the axis of the left ventricle, `thickness` mm thick, for each phase.

    Args:
        x, y: (H, W) mm about the LV axis at the base, x to the right and y down as the image is shown; a regular grid.
        sub_slices: planes through the thickness; their mean gives the partial volume.

    Raises:
        ParameterError: on a thickness or number of sub-slices that is not positive.
    """
    if thickness <= 0 or sub_slices < 1:
        raise ParameterError(f"thickness {thickness} mm in {sub_slices} sub-slices", field="thickness",
                             remedy="give a positive thickness and at least one sub-slice")
    noise = noise_in_plane(anatomy.texture, x, y, z)
    around = paint_surroundings(anatomy.surroundings, x, y, z, noise)
    grain = 0.7 * noise(6.0, 1.0) + 0.7 * noise(17.0, 2.0)
    offsets = ((np.arange(sub_slices) + 0.5) / sub_slices - 0.5) * thickness
    return {phase: Plane(np.stack([_with_heart(anatomy, phase, around, x, y, z + dz) for dz in offsets]), grain)
            for phase in phases}


def _with_heart(anatomy: Anatomy, phase: str, around: np.ndarray, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
    """`around` with the heart of `phase` painted over it."""
    heart, details = anatomy.phases[phase], anatomy.details
    contraction = heart.contraction
    cx, cy = (details.tilt[k] * z + contraction * details.systolic_shift[k] for k in (0, 1))
    material = around.copy()
    reach = float(heart.rv.max()) + _PADDING_MM
    rows = np.flatnonzero(np.abs(y[:, 0] - cy) < reach)
    columns = np.flatnonzero(np.abs(x[0] - cx) < reach)
    if len(rows) == 0 or len(columns) == 0:
        return material
    box = np.s_[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
    x, y = x[box] - cx, y[box] - cy
    r = np.hypot(x, y)
    angle = np.arctan2(y, x) - details.septum_direction - contraction * details.twist
    angle = (angle + np.pi) % (2 * np.pi) - np.pi
    noise = noise_in_plane(anatomy.texture, x, y, z)
    level = heart.level(z)
    part = material[box]
    if level <= 1.12:
        _paint_fat(anatomy, part, heart, level, r, angle)
    if 0 <= level <= 1:
        _paint_ventricles(anatomy, part, heart, level, r, angle, noise)
    elif level < 0:
        _paint_atria(anatomy, part, heart, level * (heart.apex - heart.base), r, angle)
    material[box] = part
    return material


def _over_angle(values: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """(angles,) values interpolated periodically at `angle`."""
    position = (angle + np.pi) / (ANGLES[1] - ANGLES[0])
    k = position.astype(np.int32)
    step = (position - k).astype(np.float32)
    values = np.append(values, [values[0], values[1]]).astype(np.float32)
    return values[k] * (1 - step) + values[k + 1] * step


def _ring_noise(anatomy: Anatomy, level: float, column: int, cells: int) -> np.ndarray:
    """(angles,) periodic noise about the axis, smooth in angle and level; `cells` waves or so around the ring."""
    texture, n = anatomy.texture, len(anatomy.texture)
    at = (level * 8.0) % n
    k = int(at)
    line = (1 - at + k) * texture[column % n, k % n] + (at - k) * texture[column % n, (k + 1) % n]
    ring = line[:cells] - np.linspace(0, 1, cells) * (line[cells - 1] - line[0])  # closed: first equals last
    return np.interp(np.linspace(0, cells - 1, len(ANGLES)), np.arange(cells), ring)


def _paint_fat(anatomy: Anatomy, part: np.ndarray, heart: HeartPhase, level: float, r: np.ndarray,
               angle: np.ndarray) -> None:
    """Epicardial fat, pericardium and fat pads outside it."""
    details = anatomy.details
    _, epi, rv = heart.radii(level)
    outer = rv + details.rv_wall * (rv > epi + 0.1)
    if level > 1:
        outer = outer * 0 + 6.0
    insertion = np.exp(-(((np.abs(ANGLES) - details.rv_span) / 0.25) ** 2))
    groove = 1 + 2.2 * np.exp(-np.clip(level, 0, 1) / 0.12) + 1.2 * insertion
    lumps = np.clip(0.15 + details.fat_clumps * _ring_noise(anatomy, level, 3, 12), 0.0, 3)
    inside = outer + np.clip(details.heart_fat * groove * lumps, 0.0, 13)
    thickness, middle, width = anatomy.surroundings.fat_pad
    away = np.angle(np.exp(1j * (ANGLES + details.septum_direction - middle))) / width
    pad = inside + 1.2 + thickness * np.exp(-(away**2)) * np.clip(0.5 + level, 0, 1.4)
    radius = _over_angle(pad, angle)
    part[r < radius] = Material.BODY_FAT
    inner = _over_angle(inside, angle)
    part[r < inner + 1.2] = Material.PERICARDIUM
    part[r < inner] = Material.HEART_FAT


def _paint_ventricles(anatomy: Anatomy, part: np.ndarray, heart: HeartPhase, level: float, r: np.ndarray,
                      angle: np.ndarray, noise: Noise) -> None:
    details = anatomy.details
    endo, epi, rv = heart.radii(level)
    has_rv = rv > epi + 0.1
    endo_r, epi_r, rv_r = (_over_angle(s, angle) for s in (endo, epi, rv))
    wall = _over_angle(np.where(has_rv, details.rv_wall, 0.0), angle) * (1 + 0.3 * heart.contraction)
    part[r < rv_r + wall] = Material.THIN_WALL
    in_rv = (r < rv_r) & (r >= epi_r)
    ventricle = level >= _over_angle(heart.rv_base, angle)
    part[in_rv & ~ventricle] = Material.VESSEL_BLOOD
    part[in_rv & ventricle] = Material.RV_BLOOD
    part[in_rv & ventricle & _rv_muscle(anatomy, level, r, angle, epi_r, rv_r, noise)] = Material.RV_TRABECULA
    part[r < epi_r] = Material.MYOCARDIUM
    scar = anatomy.scar[int(round(level * (len(anatomy.scar) - 1)))]
    if (scar > 0.5).any():
        part[(r < epi_r) & (_over_angle(scar, angle) > 0.5)] = Material.SCAR
    part[r < endo_r] = Material.LV_BLOOD
    part[(r < endo_r) & _lv_muscle(anatomy, level, r, angle, endo, endo_r, noise, heart.contraction)] = Material.LV_TRABECULA


def _lv_muscle(anatomy: Anatomy, level: float, r: np.ndarray, angle: np.ndarray, endo: np.ndarray, endo_r: np.ndarray,
               noise: Noise, contraction: float) -> np.ndarray:
    """Where the LV cavity holds trabeculae or papillary muscle."""
    details = anatomy.details
    amplitude = details.trabeculation[0] * (0.4 + 1.5 * level) * (1 + 0.5 * contraction)
    ridges = np.clip(0.25 + 0.9 * _ring_noise(anatomy, level, 11, 30), 0, 2)
    muscle = r > endo_r * (1 - _over_angle(np.clip(amplitude * ridges, 0, 0.7), angle))
    columns = (r > 0.72 * endo_r) & (noise(4.2, 4.0) > 2.3 - 5 * details.trabeculation[0]) & (level > 0.2)
    muscle |= columns
    along = np.clip(1 - ((level - 0.52) / 0.3) ** 2, 0, None)
    for direction, depth, radius, aspect in details.papillary:
        if along <= 0:
            break
        size = radius * np.sqrt(along) * (1 + 0.15 * contraction)
        centre = np.interp(direction, ANGLES, endo, period=2 * np.pi) * min(depth + 0.25 * abs(level - 0.4), 0.92)
        turn = angle - direction
        radial, tangential = r * np.cos(turn) - centre, r * np.sin(turn)
        muscle |= (radial / (size * aspect)) ** 2 + (tangential * aspect / size) ** 2 < 1
    return muscle


def _rv_muscle(anatomy: Anatomy, level: float, r: np.ndarray, angle: np.ndarray, epi_r: np.ndarray, rv_r: np.ndarray,
               noise: Noise) -> np.ndarray:
    """Where the RV cavity holds trabeculae or the moderator band: along its free wall and towards its apex."""
    details = anatomy.details
    outward = (r - epi_r) / np.maximum(rv_r - epi_r, 1e-3)
    amount = details.trabeculation[1] * (0.3 + 1.3 * level) * (0.4 + outward)
    muscle = noise(5.0, 5.0) > 2.1 - 3.2 * amount
    if details.moderator_band > 0 and 0.5 < level < 0.62:
        muscle |= np.abs(r * np.sin(angle - details.rv_tilt[1])) < details.moderator_band
    return muscle


def _paint_atria(anatomy: Anatomy, part: np.ndarray, heart: HeartPhase, above: float, r: np.ndarray,
                 angle: np.ndarray) -> None:
    """Left atrium, aortic root, and what the right heart's outline holds `above` (negative mm) the mitral plane."""
    details = anatomy.details
    _, epi, rv = heart.radii(0.0)
    epi_r, rv_r = _over_angle(epi, angle), _over_angle(rv, angle)
    shrink = max(0.25, 1 + above / 70)
    part[r < rv_r * shrink + 2] = Material.THIN_WALL
    part[r < rv_r * shrink] = Material.VESSEL_BLOOD
    part[r < epi_r * shrink + 1] = Material.HEART_FAT
    part[r < epi_r * shrink - 2] = Material.THIN_WALL
    part[r < epi_r * shrink - 4.5] = Material.VESSEL_BLOOD
    x, y = r * np.cos(angle), r * np.sin(angle)
    root = np.hypot(x - 0.62 * float(epi.mean()), y - 0.35 * float(epi.mean()))
    size = 10.0 + 0.08 * details.heart_fat + 0.06 * float(epi.mean())
    part[root < size + 3] = Material.HEART_FAT
    part[root < size + 1.5] = Material.THIN_WALL
    part[root < size] = Material.VESSEL_BLOOD
