"""The four invented makers of scanners, and how one examination on one of their scanners differs from the next."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cmri_lib.errors import ParameterError


@dataclass(frozen=True)
class Vendor:
    """A maker's cine protocol and its scanner's habits.

    Attributes:
        name, key: "Phantom A", "A". centres: the two hospitals that own one.
        field: tesla. flip: degrees. tr: ms; the echo is at tr / 2.
        pixel: mm. matrix: (rows, columns) of the stored image. thickness, distance: mm, of a slice and between slices.
        acquired: share of the rows and columns of k-space that are measured; the phase encoding runs along the rows.
        apodisation: share of the measured k-space that a Tukey window rolls off.
        coil_depth: mm at which the surface coils see half; coil_correction: share of their shading that is corrected.
        off_resonance: Hz, spread of the field across the chest. inflow: gain of blood by fresh spins.
        flow_ghost, breath_ghost: relative strength. noise: standard deviation per channel relative to blood.
        sharpening: gain of an unsharp mask. gamma, scale: of the stored intensities; scale is the value of blood.
    """

    name: str
    key: str
    centres: tuple[int, int]
    field: float
    flip: float
    tr: float
    pixel: float
    matrix: tuple[int, int]
    thickness: float
    distance: float
    acquired: tuple[float, float]
    apodisation: float
    coil_depth: float
    coil_correction: float
    off_resonance: float
    inflow: float
    flow_ghost: float
    breath_ghost: float
    noise: float
    sharpening: float
    gamma: float
    scale: float


VENDORS: dict[str, Vendor] = {v.key: v for v in (
    Vendor("Phantom A", "A", (1, 2), 1.5, 52, 3.1, 1.60, (142, 126), 8.0, 10.0, (0.72, 0.92), 0.25, 150, 0.35, 25, 1.15,
           0.030, 0.020, 0.0085, 0.15, 1.00, 38),
    Vendor("Phantom B", "B", (3, 4), 1.5, 56, 3.5, 1.45, (152, 136), 8.0, 10.0, (0.66, 0.80), 0.60, 190, 0.75, 22, 1.05,
           0.020, 0.030, 0.0068, 0.45, 0.88, 45),
    Vendor("Phantom C", "C", (5, 6), 3.0, 42, 2.9, 1.70, (132, 122), 6.0, 10.0, (0.85, 1.00), 0.40, 120, 0.50, 50, 1.25,
           0.045, 0.015, 0.0085, 0.05, 1.10, 35),
    Vendor("Phantom D", "D", (7, 8), 3.0, 36, 3.2, 1.80, (126, 116), 7.0, 9.6, (0.90, 0.95), 0.10, 135, 0.15, 40, 1.10,
           0.025, 0.025, 0.0125, 0.00, 0.95, 41),
)}


def vendor_of(key: str | Vendor) -> Vendor:
    """The vendor called `key`.

    Raises:
        ParameterError: if there is none.
    """
    if isinstance(key, Vendor):
        return key
    if key not in VENDORS:
        raise ParameterError(f"unknown vendor {key!r}", field="vendor", remedy=f"choose among {sorted(VENDORS)}")
    return VENDORS[key]


def examination(vendor: Vendor, centre: int, rng: np.random.Generator) -> Vendor:
    """`vendor` as it is set on one day at `centre`.

    The second hospital uses other presets, the technician or the SAR limit adjusts the flip angle, coils lie where the
    patient allows, and some patients hold their breath badly.
    """
    second = centre == vendor.centres[1]

    def vary(spread: float) -> float:
        return float(np.exp(rng.normal(0, spread)))

    return replace(
        vendor, flip=vendor.flip * (0.92 if second else 1.04) * vary(0.13), tr=vendor.tr * (1.04 if second else 1.0),
        coil_depth=vendor.coil_depth * vary(0.25),
        coil_correction=float(np.clip(vendor.coil_correction * vary(0.2), 0, 1)),
        off_resonance=vendor.off_resonance * vary(0.3),
        inflow=1 + (vendor.inflow - 1 + 0.1 * second) * vary(0.6),
        flow_ghost=vendor.flow_ghost * vary(0.5), breath_ghost=vendor.breath_ghost * vary(0.6),
        noise=vendor.noise * (1.15 if second else 0.95) * vary(0.2),
        sharpening=max(0.0, vendor.sharpening + (0.1 if second else 0.0)), gamma=vendor.gamma * vary(0.06),
        scale=vendor.scale * (0.9 if second else 1.05) * vary(0.08))
