"""From materials to images: the bSSFP signal, field, coils, k-space, noise and the look of the reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.fft import fft2, fftshift, ifft2, ifftshift
from scipy.ndimage import gaussian_filter
from scipy.signal.windows import tukey

from cmri_lib.cohort.case import Case, Volume
from cmri_lib.errors import ParameterError
from cmri_lib.phantom.anatomy import Anatomy, patient_name
from cmri_lib.phantom.disease import Person
from cmri_lib.phantom.heartbeat import beating
from cmri_lib.phantom.inversion_recovery import recovery
from cmri_lib.phantom.rendering import Plane, noise_in_plane, render
from cmri_lib.phantom.tissue import IS_BLOOD, RELAXATION, TISSUE_LABEL, Material
from cmri_lib.phantom.vendors import VENDORS, Vendor, examination, vendor_of

_SUPERSAMPLING = 2
_FAT_SHIFT_HZ_PER_TESLA = -147.0  # 3.45 ppm × 42.58 MHz/T
_FREQUENCY_BINS = 257
_MIDDLE = 0.5  # of the way from base to apex at ED: the level of a mid-ventricular slice in the series over inversion times
# relative strength of the grain of each material: flow in blood, septa in fat, texture of organs
_GRAIN = np.full(len(Material), 0.06)
_GRAIN[[Material.LUNG, Material.STOMACH_CONTENT, Material.MARROW, Material.MUSCLE]] = (0.35, 0.3, 0.2, 0.16)
_GRAIN[[Material.BODY_FAT, Material.HEART_FAT, Material.STOMACH_WALL]] = (0.09, 0.14, 0.2)
_GRAIN[[Material.LV_BLOOD, Material.RV_BLOOD, Material.VESSEL_BLOOD]] = (0.05, 0.09, 0.12)


def bssfp_signal(t1: ArrayLike, t2: ArrayLike, density: ArrayLike, flip: float, tr: float,
                 off_resonance: ArrayLike = 0.0) -> np.ndarray:
    """Transverse steady-state magnetisation of balanced SSFP at the echo, TE = TR/2, with alternating RF phase.

    Freeman and Hill, J Magn Reson 4:366 (1971), in the form of Hargreaves, J Magn Reson Imaging 36:1300 (2012), eq. 2:
    M(0+) = M0 (1 − E1) sin α (1 − E2 e^{−iθ}) / [(1 − E1 cos α)(1 − E2 cos θ) − E2 (E1 − cos α)(E2 − cos θ)],
    where θ = 2π Δf TR + π is the precession per TR in the frame of the alternating pulse; to the echo it decays by
    e^{−TE/T2} and turns by e^{iθ/2}. The result is rotated to be real and positive on resonance.

    Args:
        t1, t2, tr: ms. density: relative. flip: degrees. off_resonance: Hz. All but flip and tr broadcast.

    Returns:
        complex array.

    Raises:
        ParameterError: if a time is not positive or the flip angle not within 0–180 degrees.
    """
    t1, t2 = np.asarray(t1, float), np.asarray(t2, float)
    if tr <= 0 or (t1 <= 0).any() or (t2 <= 0).any() or not 0 < flip < 180:
        raise ParameterError(f"TR {tr} ms, flip {flip}°, or a T1 or T2 is out of range", field="bSSFP",
                             remedy="give positive times in ms and a flip angle between 0 and 180 degrees")
    alpha = np.radians(flip)
    theta = 2e-3 * np.pi * np.asarray(off_resonance) * tr + np.pi
    e1, e2 = np.exp(-tr / t1), np.exp(-tr / t2)
    cos, sin = np.cos(alpha), np.sin(alpha)
    denominator = (1 - e1 * cos) * (1 - e2 * np.cos(theta)) - e2 * (e1 - cos) * (e2 - np.cos(theta))
    start = np.asarray(density) * (1 - e1) * sin * (1 - e2 * np.exp(-1j * theta)) / denominator
    return start * np.exp(-tr / 2 / t2) * np.exp(1j * (theta - np.pi) / 2)


def signal_table(vendor: Vendor, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signal of every material (materials, frequencies) complex64 relative to LV blood, and the frequencies in Hz.

    Args:
        spread: (materials, 3) the patient's factors on T1, T2 and density.
    """
    t1, t2, density = _relaxation(vendor, spread)
    shift = np.array([_FAT_SHIFT_HZ_PER_TESLA * vendor.field * RELAXATION[m].is_fat for m in Material])
    frequency = np.linspace(-1e3 / vendor.tr, 1e3 / vendor.tr, _FREQUENCY_BINS)
    table = bssfp_signal(t1[:, None], t2[:, None], density[:, None], vendor.flip, vendor.tr,
                         frequency[None] + shift[:, None])
    table[IS_BLOOD] *= vendor.inflow
    blood = np.abs(table[Material.LV_BLOOD, _FREQUENCY_BINS // 2])
    return (table / blood).astype(np.complex64), frequency


def _relaxation(vendor: Vendor, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T1 in ms, T2 in ms, density) of every material at the vendor's field, in a patient of this `spread` (materials, 3)."""
    column = 0 if vendor.field < 2 else 1
    return (np.array([RELAXATION[m].t1[column] for m in Material]) * spread[:, 0],
            np.array([RELAXATION[m].t2[column] for m in Material]) * spread[:, 1],
            np.array([RELAXATION[m].density for m in Material]) * spread[:, 2])


def sample_kspace(signal: np.ndarray, vendor: Vendor, matrix: tuple[int, int], sigma: float, ghost: tuple[float, float],
                  rng: np.random.Generator, moving: np.ndarray | None = None) -> np.ndarray:
    """Magnitude image (matrix) of a finely sampled `signal` of the same field of view.

    The centre of k-space is measured, with Gaussian noise, rolled off by a Tukey window and filled with zeros to
    `matrix`; ghosts are copies displaced along the rows, which is what a periodic modulation of the lines does.

    Args:
        signal: (H, W) complex, H and W at least `matrix`.
        sigma: standard deviation of the noise per channel in the image; the magnitude is Rician
            (Gudbjartsson and Patz, Magn Reson Med 34:910, 1995).
        ghost: (strength for all of `signal`, displacement as a share of the field of view).
        moving: (H, W) complex, further signal that appears only in the ghost.

    Raises:
        ParameterError: if `matrix` exceeds the signal.
    """
    if matrix[0] > signal.shape[0] or matrix[1] > signal.shape[1]:
        raise ParameterError(f"matrix {matrix} exceeds the sampled signal {signal.shape}", field="matrix",
                             remedy="render the anatomy at least as finely as the image")
    measured = tuple(2 * int(round(n * share / 2)) for n, share in zip(matrix, vendor.acquired))
    spectrum = _crop(fftshift(fft2(signal)), measured)
    lines = np.arange(measured[0])[:, None] - measured[0] // 2
    modulation = np.cos(2 * np.pi * lines * ghost[1])
    spectrum = spectrum * (1 + ghost[0] * modulation)
    if moving is not None:
        spectrum += _crop(fftshift(fft2(moving)), measured) * modulation
    spectrum *= matrix[0] * matrix[1] / signal.size
    window = np.outer(*(tukey(n + 2, vendor.apodisation)[1:-1] for n in measured))
    scale = sigma * matrix[0] * matrix[1] / np.sqrt((window**2).sum())
    noise = rng.normal(size=(2, *measured)) * scale
    spectrum = (spectrum + noise[0] + 1j * noise[1]) * window
    full = np.zeros(matrix, complex)
    _crop(full, measured)[:] = spectrum
    return np.abs(ifft2(ifftshift(full)))


def _crop(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """View of the central part; the zero frequency at n // 2 stays at m // 2."""
    start = [n // 2 - m // 2 for n, m in zip(array.shape, shape)]
    return array[start[0]:start[0] + shape[0], start[1]:start[1] + shape[1]]


def reconstruct(magnitude: np.ndarray, vendor: Vendor) -> np.ndarray:
    """Stored intensities (int16) of a magnitude image in units of blood: sharpened, bent by gamma, scaled, rounded."""
    sharp = magnitude + vendor.sharpening * (magnitude - gaussian_filter(magnitude, 1.2))
    return np.rint(np.clip(sharp, 0, 6) ** vendor.gamma * vendor.scale).astype(np.int16)


class _Room:
    """Field and coils about one patient on one scanner: smooth maps over the finely sampled field of view."""

    def __init__(self, vendor: Vendor, rng: np.random.Generator, x: np.ndarray, y: np.ndarray):
        u, v = x / 120, y / 120
        a = rng.normal(0, 1, 5)
        field = a[0] * u + a[1] * v + 0.8 * (a[2] * u * v + a[3] * (u**2 - v**2)) + 0.3 * a[4]
        # susceptibility of the lung beside the inferolateral wall
        px, py = rng.normal(35, 8), rng.normal(35, 8)
        dx, dy = (x - px) / 22, (y - py) / 22
        field += 1.6 * (dx - dy) * np.exp(-(dx**2 + dy**2) / 2)
        self.off_resonance = vendor.off_resonance * field
        direction = rng.normal(np.radians(215), 0.5)
        coils = 0.0
        for turn, gain in ((-0.6, 1.0), (0.0, 1.2), (0.6, 1.0), (np.pi, 0.8)):
            cx, cy = 135 * np.cos(direction + turn), 135 * np.sin(direction + turn)
            distance = np.hypot(x - cx, y - cy) / vendor.coil_depth
            coils = coils + gain * rng.uniform(0.7, 1.3) / (1 + distance**2) ** 1.5
        coils = coils / coils[np.hypot(x, y) < 40].mean()
        self.sensitivity = coils ** (1 - vendor.coil_correction)


def _image(planes: Plane, table: np.ndarray, bins: np.ndarray, room: _Room,
           jets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(signal, blood's part of it), (H, W) complex, mean over the sub-slices. `jets`: (H, W) factor on blood."""
    flat = table.ravel()
    signal, blood = np.zeros(bins.shape, np.complex64), np.zeros(bins.shape, np.complex64)
    for material in planes.materials:
        contribution = flat[material.astype(np.int32) * _FREQUENCY_BINS + bins]
        contribution = contribution * (1 + _GRAIN[material] * planes.grain)
        flowing = IS_BLOOD[material]
        contribution = np.where(flowing, contribution * jets, contribution)
        signal += contribution
        blood += contribution * flowing
    return signal * room.sensitivity / len(planes.materials), blood * room.sensitivity / len(planes.materials)


def _labels(materials: np.ndarray, matrix: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(mask, tissues), each (matrix) uint8: the commonest label of the fine samples in every voxel, LV, myocardium and
    RV before any other where equal."""
    tissue = TISSUE_LABEL[materials]
    fine = tissue.reshape(len(tissue), matrix[0], _SUPERSAMPLING, matrix[1], _SUPERSAMPLING)
    present = np.roll(np.unique(tissue), -1 if (tissue == 0).any() else 0)  # air last: it loses every tie
    counts = [sum((fine[:, :, i, :, j] == label).sum(0, dtype=np.uint8) for i in range(_SUPERSAMPLING)
                  for j in range(_SUPERSAMPLING)) for label in present]
    tissues = present[np.argmax(counts, axis=0)]
    return np.where(tissues <= 3, tissues, 0).astype(np.uint8), tissues


#: What a stack covers at most, in mm: eleven slices of the usual protocol.
COVERAGE = 110.0


def slice_positions(anatomy: Anatomy, distance: float) -> np.ndarray:
    """Positions in mm along the LV axis, base to apex; now and then one slice lies beyond the base or the apex.

    There are at least 6. A stack ends `COVERAGE` mm below its beginning, or with the eleventh slice if that lies lower: the
    largest hearts lose their apex, at every distance alike.

    Raises:
        ParameterError: if the distance is so small that this takes more slices than the patient holds the breath for.
    """
    first, apex = anatomy.first_slice * distance, anatomy.phases["ED"].apex
    count = int(np.floor((apex + anatomy.past_apex * distance - first) / distance)) + 1
    count = int(np.clip(count, 6, max(11, COVERAGE // distance)))
    if count > (most := len(anatomy.breath_hold)):
        raise ParameterError(f"{count} slices at a distance of {distance} mm", field="distance",
                             remedy=f"give a larger one: a scan has at most {most} slices")
    return first + distance * np.arange(count)


def scan(anatomy: Anatomy, vendor: str | Vendor, seed: int, *, distance: float | None = None, resolution: float = 1.0,
         scan_id: str | None = None, centre: int | None = None) -> Case:
    """The short-axis cine of `anatomy` on a scanner of `vendor`, frames ED and ES; bit-identical for equal arguments.

    Args:
        seed: of the examination (settings of the day, coil position, noise).
        distance: mm between slices; the vendor's own where None. Give one for several vendors to pair their slices.
        resolution: pixels per pixel of the vendor's protocol, 2 for half the pixel size.

    Raises:
        ParameterError: for an unknown vendor, a distance or resolution that is not positive, or too small a distance.
    """
    vendor = vendor_of(vendor)
    distance = vendor.distance if distance is None else distance
    if distance <= 0 or resolution <= 0 or seed < 0:
        raise ParameterError(f"distance {distance} mm, resolution {resolution}, seed {seed}", field="scan",
                             remedy="give a positive distance and resolution and a seed of 0 or more")
    rng = np.random.default_rng([seed, anatomy.number, 100 + sorted(VENDORS).index(vendor.key)])
    centre = int(rng.choice(vendor.centres)) if centre is None else centre
    day = examination(vendor, centre, rng)
    matrix = tuple(2 * int(round(n * resolution / 2)) for n in vendor.matrix)
    pixel = vendor.pixel / resolution
    x, y = _fine_grid(matrix, pixel, anatomy)
    room = _Room(day, rng, x, y)
    table, frequency = signal_table(day, anatomy.tissue_spread)
    bins = np.rint(np.interp(room.off_resonance, frequency, np.arange(_FREQUENCY_BINS))).astype(np.int32)
    ghost_shift = rng.uniform(0.2, 0.5)
    stacks: dict[str, list] = {"ED": [], "ES": []}
    for k, z in enumerate(slice_positions(anatomy, distance)):
        dx, dy = anatomy.breath_hold[k]
        planes = render(anatomy, float(z), vendor.thickness, x - dx, y - dy)
        for phase, plane in planes.items():
            jets = _jets(anatomy, x - dx, y - dy, float(z), phase)
            signal, blood = _image(plane, table, bins, room, jets)
            magnitude = sample_kspace(signal, day, matrix, day.noise, (day.breath_ghost, ghost_shift), rng,
                                      moving=day.flow_ghost * rng.uniform(0.5, 1.5) * blood)
            stacks[phase].append((reconstruct(magnitude, day), *_labels(plane.materials, matrix)))
    volumes = {phase: Volume(np.stack([s[0] for s in stack]).astype(np.float32), np.stack([s[1] for s in stack]),
                             np.stack([s[2] for s in stack])) for phase, stack in stacks.items()}
    affine = np.diag([-pixel, -pixel, distance, 1.0])
    patient = patient_name(anatomy.number)
    return Case(patient, scan_id or patient, volumes, (distance, pixel, pixel), affine, vendor.name, str(centre),
                anatomy.person.disease, "phantom", _covariates(anatomy.person, vendor.field))


@dataclass(frozen=True)
class InversionSeries:
    """One slice at P phases of the heartbeat and T inversion times.

    Attributes:
        images: (P, T, H, W) float32, magnitude in units of the steady state of LV blood.
        masks: (P, H, W) uint8 of `LABELS`.
        t1: (P, H, W) float32, ms, of pixels that hold one material only; NaN elsewhere.
    """

    images: np.ndarray
    masks: np.ndarray
    t1: np.ndarray


def inversion_series(anatomy: Anatomy, vendor: str | Vendor, seed: int, contractions: Sequence[float],
                     inversion_times: Sequence[float], *, size: int, field_of_view: float, flip: float) -> InversionSeries:
    """The mid-ventricular slice of `anatomy` at every contraction and inversion time; bit-identical for equal arguments.

    As `scan`, with each tissue's signal multiplied by its `recovery`; so at a long inversion time it is a cine of this flip
    angle. One breath-hold, the LV axis in the middle of the image, intensities linear: no sharpening, no gamma, as for any map.
    All blood is inverted: none flows in fresh. Off resonance only the steady state changes.

    Args:
        seed: of the examination. contractions: 0 at ED … 1 at ES (`heartbeat`). inversion_times: ms.
        size: pixels of a side. field_of_view: mm. flip: degrees, of the read-out.

    Raises:
        ParameterError: for an unknown vendor, no contraction or time, a size or field of view that is not positive, and as
            `heart_at` and `recovery`.
    """
    if not 0 < len(set(contractions)) == len(contractions) or not len(inversion_times) or size < 1 or field_of_view <= 0:
        raise ParameterError(f"contractions {contractions}, {len(inversion_times)} times, {size} pixels, {field_of_view} mm",
                             field="series",
                             remedy="give every contraction once, a time, and a positive size and field of view")
    vendor, heart = vendor_of(vendor), beating(anatomy, contractions)
    rng = np.random.default_rng([seed, anatomy.number, 200 + sorted(VENDORS).index(vendor.key)])
    day = replace(examination(vendor, vendor.centres[0], rng), flip=flip)
    z = _MIDDLE * anatomy.phases["ED"].apex
    axis = replace(anatomy, view=tuple(tilt * z for tilt in anatomy.details.tilt))
    x, y = _fine_grid((size, size), field_of_view / size, axis)
    room = _Room(day, rng, x, y)
    table, frequency = signal_table(day, anatomy.tissue_spread)
    t1, t2, _ = _relaxation(day, anatomy.tissue_spread)
    bins = np.rint(np.interp(room.off_resonance, frequency, np.arange(_FREQUENCY_BINS))).astype(np.int32)
    ghost = day.breath_ghost, rng.uniform(0.2, 0.5)
    images, masks, truth = [], [], []
    for phase, plane in render(heart, z, vendor.thickness, x, y, phases=tuple(map(str, contractions))).items():
        jets = _jets(heart, x, y, z, phase)
        for time in inversion_times:
            weighted = table * recovery(t1, t2, flip, time)[:, None].astype(np.float32)
            signal, blood = _image(plane, weighted, bins, room, jets)
            images.append(sample_kspace(signal, day, (size, size), day.noise, ghost, rng,
                                        moving=day.flow_ghost * rng.uniform(0.5, 1.5) * blood))
        masks.append(_labels(plane.materials, (size, size))[0])
        truth.append(_pure(plane.materials, t1, size))
    shape = len(contractions), len(inversion_times), size, size
    return InversionSeries(np.reshape(images, shape).astype(np.float32), np.stack(masks), np.stack(truth))


def _pure(materials: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """(size, size) float32: `values` of the material of each pixel whose fine samples are all of it, NaN elsewhere."""
    fine = materials.reshape(len(materials), size, _SUPERSAMPLING, size, _SUPERSAMPLING)
    low, high = fine.min((0, 2, 4)), fine.max((0, 2, 4))
    return np.where((low == high) & (low != Material.AIR), values[low], np.nan).astype(np.float32)


def _fine_grid(matrix: tuple[int, int], pixel: float, anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) in mm about the LV axis of the fine samples of an image whose centre is near the heart's."""
    rows, columns = (np.arange(n * _SUPERSAMPLING) / _SUPERSAMPLING - n / 2 + 0.5 / _SUPERSAMPLING for n in matrix)
    return tuple(np.meshgrid(columns * pixel + anatomy.view[0], rows * pixel + anatomy.view[1]))


def _jets(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, z: float, phase: str) -> np.ndarray:
    """(H, W) factor on the signal of blood: dephasing where it streams, more near the valves and in systole."""
    contraction = anatomy.phases[phase].contraction
    noise = noise_in_plane(anatomy.texture, x, y, z)(13.0, 8.0 + contraction)
    strength = anatomy.stream * (0.5 + np.exp(-max(z, 0) / 25)) * (1 + 0.3 * contraction)
    saturated = 1 - 0.1 * contraction  # blood that has stayed in the slice has lost its inflow gain
    return saturated * (1 - strength * np.clip(noise - 0.3, 0, 2))


def _covariates(person: Person, field: float) -> dict[str, object]:
    return {"Age": person.age, "Sex": person.sex, "Height": person.height, "Weight": person.weight,
            "BMI": round(person.bmi, 1), "HeartRate": person.heart_rate, "Field": field}
