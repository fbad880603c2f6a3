"""The beating heart of a virtual patient, as surfaces that are star-shaped about the long axis of the left ventricle.

Every surface is a table radius(level, angle): the level runs from the mitral plane (0) to the epicardial apex (1), the
angle is measured about the LV axis from the middle of the septum. Diastole is drawn to a wanted volume. Systole
follows from three principles: the base descends towards a fixed apex, the cavity contracts in proportion to the local
contractility until the ejection fraction is reached, and myocardium is incompressible, so that the wall thickens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq

from cmri_lib.cohort.cardiac_function import ejection_fraction
from cmri_lib.errors import ParameterError
from cmri_lib.phantom.disease import Person, Targets, draw_person, draw_targets
from cmri_lib.phantom.surroundings import Surroundings, draw_surroundings
from cmri_lib.phantom.tissue import Material

ANGLES = np.linspace(-np.pi, np.pi, 180, endpoint=False)
LEVELS = np.linspace(0.0, 1.0, 97)
MM3_PER_ML = 1000.0


@dataclass(frozen=True)
class HeartPhase:
    """Surfaces of one phase; radii (levels, angles) in mm about the LV axis.

    Attributes:
        endo, epi: LV cavity and outer LV wall. rv: outer border of the RV cavity (equals `epi` where there is none).
        base, apex: position of level 0 and level 1 along the axis, mm; the axis points from base to apex.
        rv_base: (angles,) level of the tricuspid and pulmonary plane; the right heart above it is atrium or artery.
        contraction: how far it has contracted, 0 at ED and 1 at ES.
    """

    endo: np.ndarray
    epi: np.ndarray
    rv: np.ndarray
    base: float
    apex: float
    rv_base: np.ndarray
    contraction: float = 0.0

    def _volume(self, outer: np.ndarray, inner: np.ndarray | float, weight: np.ndarray | float = 1.0) -> float:
        area = 0.5 * ((outer**2 - inner**2) * weight).sum(1) * (ANGLES[1] - ANGLES[0])
        return float(np.trapezoid(area, LEVELS) * (self.apex - self.base) / MM3_PER_ML)

    @property
    def lv_volume(self) -> float:
        """Cavity with papillary muscles, mL."""
        return self._volume(self.endo, 0.0)

    @property
    def myocardial_volume(self) -> float:
        """LV wall, mL."""
        return self._volume(self.epi, self.endo)

    @property
    def rv_volume(self) -> float:
        """RV cavity below the tricuspid plane, mL."""
        below = np.clip((LEVELS[:, None] - self.rv_base) / (LEVELS[1] - LEVELS[0]) + 0.5, 0, 1)
        return self._volume(self.rv, self.epi, below)

    def level(self, z: float) -> float:
        """Level of the plane at `z` mm along the axis; below 0 it is above the mitral plane, above 1 past the apex."""
        return (z - self.base) / (self.apex - self.base)

    def radii(self, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(endo, epi, rv) over `ANGLES` at `level`, interpolated between the tabulated levels."""
        k = np.clip(level, 0, 1) * (len(LEVELS) - 1)
        low = min(int(k), len(LEVELS) - 2)
        return tuple((1 - (k - low)) * s[low] + (k - low) * s[low + 1] for s in (self.endo, self.epi, self.rv))


@dataclass(frozen=True)
class Details:
    """What varies between hearts beside size: angles in radians, lengths in mm, the rest relative."""

    roundness: float        # exponent of the long-axis profile
    equator: float          # level of the widest short axis
    harmonics: np.ndarray   # (4, 2) relative amplitude and phase of orders 2–5 of the outline
    rv_span: float          # half the angle over which the RV lies on the LV
    rv_shape: tuple[float, float]       # exponents of the RV outline: crescent … round
    rv_taper: tuple[float, float, float]  # level of its apex and exponents of its long-axis profile
    rv_tilt: tuple[float, float]        # angle of the RV's middle at base and its drift to the apex
    rv_skew: float
    rv_wall: float
    rv_base: tuple[float, float]        # tricuspid level in ED and ES
    outflow: float          # how much further up the outflow side of the RV reaches, as a level
    heart_fat: float        # mean epicardial fat, mm
    fat_clumps: float
    papillary: np.ndarray   # (2, 4) angle, relative depth, radius, aspect of the two muscles
    trabeculation: tuple[float, float]  # LV, RV
    moderator_band: float   # half width, mm; 0 for none seen
    septum_direction: float  # angle of the septum in the image, x right, y down
    tilt: tuple[float, float]  # drift of the axis in x and y per mm towards the apex
    systolic_shift: tuple[float, float]
    twist: float            # systolic rotation


def patient_name(number: int) -> str:
    """The same in a cohort of any size: P007, P130, P1000."""
    return f"P{number:03d}"


@dataclass(frozen=True)
class Anatomy:
    """A virtual patient: `Person`, the two phases of the heart, its surroundings and details, and what `scan` needs.

    Attributes:
        number, seed: what the patient was drawn from.
        breath_hold: (slices, 2) in-plane displacement of each slice in mm, a new breath-hold each.
        texture: (n, n, n) smooth periodic noise of unit variance that gives every tissue its grain.
        tissue_spread: (materials, 3) factors on T1, T2 and density of each material.
        view: centre of the images in mm about the LV axis. stream: loss of signal where blood streams, 0–1.
        scar: (levels, angles) 1 in an infarct, 0 in healthy myocardium.
        first_slice, past_apex: from the mitral plane to the first slice, from the apex to the last, in slice distances.
    """

    number: int
    seed: int
    person: Person
    phases: dict[str, HeartPhase]
    details: Details
    surroundings: Surroundings
    breath_hold: np.ndarray
    texture: np.ndarray
    tissue_spread: np.ndarray
    view: tuple[float, float]
    stream: float
    scar: np.ndarray
    first_slice: float
    past_apex: float

    @property
    def lvef(self) -> float:
        """LV ejection fraction, 0–1."""
        return float(ejection_fraction(self.phases["ED"].lv_volume, self.phases["ES"].lv_volume))

    @property
    def rvef(self) -> float:
        """RV ejection fraction, 0–1."""
        return float(ejection_fraction(self.phases["ED"].rv_volume, self.phases["ES"].rv_volume))

    @property
    def wall_thickness(self) -> float:
        """Largest diastolic wall thickness of the basal and middle thirds, mm (in the apical third a short-axis plane
        cuts the wall obliquely)."""
        ed = self.phases["ED"]
        return float((ed.epi - ed.endo)[LEVELS < 0.6].max())


def draw_anatomy(seed: int, number: int, disease: str) -> Anatomy:
    """The virtual patient `number` of cohort `seed`; the same arguments give the same patient, bit for bit.

    Raises:
        ParameterError: if `number` or `seed` is negative, or `disease` unknown.
    """
    if number < 0 or seed < 0:
        raise ParameterError(f"seed {seed} and patient number {number} must not be negative", field="number",
                             remedy="count patients from 1")
    streams = [np.random.default_rng([seed, number, k]) for k in range(4)]
    person = draw_person(streams[0], disease)
    targets = draw_targets(streams[0], person)
    details = _draw_details(streams[1], person)
    ed = _diastole(targets, details)
    es = _systole(ed, targets, details)
    texture = _smooth_noise(streams[3], 40)
    rng = streams[2]
    spread = np.exp(rng.normal(0, 1, (len(Material), 3)) * [0.06, 0.12, 0.06])
    spread[Material.LUNG, 2] *= np.exp(rng.normal(0, 0.35))
    return Anatomy(number, seed, person, {"ED": ed, "ES": es}, details,
                   draw_surroundings(rng, person, float(ed.epi.max()), float((ed.rv).max())),
                   rng.normal(0, 1.1, (32, 2)), texture, spread,
                   view=(float(rng.normal(-8, 8)), float(rng.normal(6, 9))), stream=float(rng.uniform(0, 0.35)),
                   scar=_scar(targets),
                   first_slice=float(rng.uniform(-0.95, 0.35)), past_apex=float(rng.uniform(-0.5, 0.6)))


def _draw_details(rng: np.random.Generator, person: Person) -> Details:
    uniform, normal = rng.uniform, rng.normal
    amplitude = np.array([0.045, 0.02, 0.012, 0.008])
    round_rv = person.disease == "RV"
    base_ed = uniform(-0.04, 0.08)
    papillary = np.array([[np.radians(normal(150, 14)), uniform(0.55, 0.8), uniform(2.5, 5.5), uniform(0.7, 1.5)],
                          [np.radians(normal(-85, 14)), uniform(0.55, 0.8), uniform(2.5, 5.5), uniform(0.7, 1.5)]])
    return Details(
        roundness=uniform(1.9, 2.6), equator=uniform(0.1, 0.32),
        harmonics=np.stack([np.abs(normal(0, amplitude)), uniform(0, 2 * np.pi, 4)], 1),
        rv_span=np.radians(uniform(62, 88) + 6 * round_rv), rv_shape=(uniform(1.6, 3.2), uniform(0.5, 1.05)),
        rv_taper=(uniform(0.78, 1.0), uniform(1.1, 2.6), uniform(0.6, 1.1)),
        rv_tilt=(np.radians(normal(2, 9)), np.radians(normal(-22, 14))), rv_skew=uniform(-0.25, 0.25),
        rv_wall=uniform(1.6, 3.2) + 1.8 * round_rv * rng.random(), rv_base=(base_ed, base_ed + uniform(0.03, 0.17)),
        outflow=uniform(0, 0.1),
        heart_fat=float(np.clip(0.9 + 0.14 * (person.bmi - 20) + 0.03 * (person.age - 40) + normal(0, 0.9), 0.3, 8)),
        fat_clumps=uniform(0.3, 1.6), papillary=papillary, trabeculation=(uniform(0.03, 0.19), uniform(0.08, 0.5)),
        moderator_band=uniform(1, 3) * (rng.random() < 0.6), septum_direction=np.radians(normal(166, 25)),
        tilt=(normal(0, 0.07), normal(0, 0.06)), systolic_shift=(normal(0.5, 1.5), normal(-0.5, 1.5)),
        twist=np.radians(uniform(0, 8)))


def _diastole(targets: Targets, details: Details) -> HeartPhase:
    """Surfaces at ED: the radius is solved for the LV volume, the RV depth for the RV volume."""
    def lv(radius: float) -> HeartPhase:
        endo_length = radius * targets.elongation
        wall = _wall(targets)
        apex_wall = 0.45 * targets.wall
        length = endo_length + apex_wall
        endo = radius * _outline(targets, details) * _profile(LEVELS * length / endo_length, details)[:, None]
        epi = (radius * _outline(targets, details) + wall) * _profile(LEVELS, details)[:, None]
        epi = np.maximum(epi, endo)
        return HeartPhase(endo, epi, epi, 0.0, length, _rv_base(details, 0))

    radius = brentq(lambda r: lv(r).lv_volume - targets.lvedv, 8, 70, xtol=1e-6)
    return with_right_ventricle(lv(radius), targets.rvedv, details)


def _systole(ed: HeartPhase, targets: Targets, details: Details) -> HeartPhase:
    """Surfaces at ES: contraction solved for the ejection fraction, wall by incompressibility, base descended."""
    shortening = 0.17 * targets.lvef + 0.01
    contractility = 1.0 - 0.98 * _scar(targets)

    def contracted(strength: float) -> HeartPhase:
        endo = ed.endo * np.clip(1 - strength * contractility, 0.12, None)
        # area (epi² − endo²)/2 dθ times length is conserved at every level and angle
        epi = np.sqrt(endo**2 + (ed.epi**2 - ed.endo**2) / (1 - shortening))
        return HeartPhase(endo, epi, epi, shortening * ed.apex, ed.apex, _rv_base(details, 1), 1.0)

    wanted = ed.lv_volume * (1 - targets.lvef)
    strength = brentq(lambda c: contracted(c).lv_volume - wanted, -0.3, 0.95, xtol=1e-7)
    return with_right_ventricle(contracted(strength), ed.rv_volume * (1 - targets.rvef), details)


def with_right_ventricle(lv: HeartPhase, volume: float, details: Details) -> HeartPhase:
    """The LV `lv` with an RV of `volume` mL laid on its septum."""
    shape = _rv_shape(details)

    def both(depth: float) -> HeartPhase:
        return replace(lv, rv=lv.epi + depth * shape)

    depth = brentq(lambda d: both(d).rv_volume - volume, 0, 200, xtol=1e-6)
    return both(depth)


def _rv_base(details: Details, phase: int) -> np.ndarray:
    """(angles,) level above which the right heart is no ventricle; it reaches further up on its outflow side."""
    return details.rv_base[phase] - details.outflow * np.sin(ANGLES)


def _profile(u: np.ndarray, details: Details) -> np.ndarray:
    """Relative radius along the long axis: a rounded cone, 1 at the equator, 0 from u = 1 on."""
    v = np.abs(u - details.equator) / (1 - details.equator)
    return np.clip(1 - v**details.roundness, 0, None) ** (1 / details.roundness)


def _outline(targets: Targets, details: Details) -> np.ndarray:
    """(angles,) relative radius of a short axis: nearly round, flattened towards the septum."""
    orders = np.arange(2, 6)
    waves = details.harmonics[:, :1] * np.cos(orders[:, None] * ANGLES + details.harmonics[:, 1:])
    return (1 + waves.sum(0)) * (1 - targets.septal_flattening * np.exp(-((ANGLES / 0.8) ** 2)))


def _bell(angle: float, width: float) -> np.ndarray:
    """(angles,) smooth periodic bump of height 1 and half width `width`."""
    distance = np.abs(np.angle(np.exp(1j * (ANGLES - angle))))
    return 1 / (1 + np.exp((distance - width) / (0.15 * width + 0.05)))


def _scar(targets: Targets) -> np.ndarray:
    """(levels, angles) 1 in the infarct, 0 in healthy myocardium, smooth between."""
    if targets.scar is None:
        return np.zeros((len(LEVELS), len(ANGLES)))
    angle, width, first, last, _ = targets.scar
    along = 1 / (1 + np.exp((first - LEVELS) / 0.05)) / (1 + np.exp((LEVELS - last) / 0.05))
    return along[:, None] * _bell(angle, width)


def _wall(targets: Targets) -> np.ndarray:
    """(levels, angles) diastolic wall thickness in mm: hypertrophied, thinned in a scar, thinner to the apex."""
    extra, angle, width = targets.bump
    wall = targets.wall * (1 + extra * _bell(angle, width)) * (1 - 0.4 * LEVELS[:, None] ** 2)
    thinning = targets.scar[4] if targets.scar else 1.0
    return wall * (1 - (1 - thinning) * _scar(targets))


def _rv_shape(details: Details) -> np.ndarray:
    """(levels, angles) relative depth of the RV cavity beyond the septum, 0 outside the insertion points."""
    apex, first, second = details.rv_taper
    depth = np.clip(1 - np.clip(LEVELS / apex, 0, 1) ** first, 0, None) ** second
    middle = details.rv_tilt[0] + details.rv_tilt[1] * LEVELS
    span = details.rv_span * (1 - 0.3 * LEVELS)
    tau = np.angle(np.exp(1j * (ANGLES[None] - middle[:, None]))) / span[:, None]
    tau = np.clip(tau + details.rv_skew * (1 - tau**2) * (np.abs(tau) < 1), -1, 1)
    return depth[:, None] * np.clip(1 - np.abs(tau) ** details.rv_shape[0], 0, None) ** details.rv_shape[1]


def _smooth_noise(rng: np.random.Generator, n: int) -> np.ndarray:
    """(n, n, n) float32 periodic noise of zero mean and unit variance, correlated over about two cells."""
    spectrum = np.fft.fftn(rng.normal(size=(n, n, n)))
    frequency = np.fft.fftfreq(n)
    f2 = frequency[:, None, None] ** 2 + frequency[None, :, None] ** 2 + frequency[None, None, :] ** 2
    noise = np.fft.ifftn(spectrum * np.exp(-f2 * (2 * np.pi) ** 2 * 0.6)).real
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)
