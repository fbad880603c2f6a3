"""Whether what a scan says can be a heart: wrong labels, exchanged phases and blank images look like good files.

Each check has a name. What it finds stops the scan, unless the cohort's table accepts that check for that scan
(column `accept`: the names of the checks whose finding a person has looked at); it is then kept with the case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import ndimage

from cmri_lib.cohort.cardiac_function import case_volumes
from cmri_lib.cohort.case import LABELS, PHASES, Case, digest
from cmri_lib.errors import DataError

#: Volumes in mL within which a human structure lies, from infants to the largest dilated hearts. A cavity may nearly
#: empty itself.
VOLUMES = {"ED": (3.0, 1200.0), "ES": (1.0, 1200.0)}
#: Share of a cavity's outline, within the slices, that must lie at myocardium for the cavity to be enclosed. Of the LV
#: it is .93 or more even where the ring is open at the base, of the RV at most .46 (all scans of ACDC and the phantom).
ENCLOSED = 0.6
#: Least difference of the means of LV blood and myocardium, in standard deviations of the image. It is .6 or more in
#: all scans of ACDC and the phantom.
CONTRAST = 0.2
#: Least difference in standard errors of voxels drawn at random, so that a small heart shows no contrast by chance. It
#: is 14 or more in all scans of ACDC and the phantom.
CONTRAST_ERRORS = 5.0
#: Least range of intensities; what lies below cannot be computed with in single precision.
SMALLEST_RANGE = 1e-9
_IN_PLANE = ndimage.generate_binary_structure(2, 1)[None]


def check_phases(case: Case) -> Iterator[str]:
    """The LV is larger at ED than at ES."""
    volumes = case_volumes(case)
    ed, es = (volumes[phase]["LV"] for phase in PHASES)
    if 0 < ed <= es:
        yield (f"the LV has {ed:.1f} mL at ED and {es:.1f} mL at ES: ED and ES are exchanged, "
               "or a mask is used twice")


def check_labels(case: Case) -> Iterator[str]:
    """There is an LV, and it is the cavity that the myocardium encloses."""
    if not any((case.volumes[phase].mask == LABELS["LV"]).any() for phase in PHASES):
        yield f"label {LABELS['LV']}, the LV, is nowhere: the study needs it, or the labels come in another order"
    for phase in PHASES:
        mask = case.volumes[phase].mask
        if not all((mask == LABELS[name]).any() for name in ("LV", "Myo")):
            continue
        share = _outlines(mask)
        if share["LV", "Myo"] < max(ENCLOSED, share["RV", "Myo"]):
            cavity, wall = max(share, key=share.get)
            seen = (f"; what is labelled {cavity} is enclosed by what is labelled {wall}: the labels come in another "
                    "order" if share[cavity, wall] >= ENCLOSED else "")
            yield (f"{phase}: {100 * share['LV', 'Myo']:.0f} % of the outline of the LV lie at myocardium, "
                   f"{100 * ENCLOSED:.0f} % or more are due{seen}")


def check_volumes(case: Case) -> Iterator[str]:
    """Structures have a human size. A structure that the scan labels nowhere is not judged."""
    volumes = case_volumes(case)
    for name in LABELS:
        for phase, (low, high) in VOLUMES.items():
            volume = volumes[phase][name]
            if any(volumes[p][name] for p in PHASES) and not low <= volume <= high:
                yield f"{name} at {phase} has {volume:.4g} mL, not {low:g} to {high:g}: spacing or labels are wrong"


def check_contrast(case: Case) -> Iterator[str]:
    """Every labelled slice shows something, and blood is brighter than myocardium, as in cine images."""
    for phase in PHASES:
        image, mask = case.volumes[phase].image.astype(np.float64), case.volumes[phase].mask
        labelled = mask.any(axis=(1, 2))
        blank = np.flatnonzero(labelled & (np.ptp(image, axis=(1, 2)) < SMALLEST_RANGE))
        if blank.size:
            yield f"{phase}: {blank.size} of {labelled.sum()} labelled slices are blank, e.g. slice {blank[0]}"
            continue
        blood, wall = (image[mask == LABELS[name]] for name in ("LV", "Myo"))
        if not (blood.size and wall.size):
            continue
        chance = CONTRAST_ERRORS * np.sqrt(1 / blood.size + 1 / wall.size)
        if blood.mean() - wall.mean() < max(CONTRAST, chance) * image.std():
            yield (f"{phase}: blood in the LV ({blood.mean():.4g}) is not brighter than myocardium "
                   f"({wall.mean():.4g}): the image is inverted, or the mask belongs to another image")


def check_roles(case: Case) -> Iterator[str]:
    """No voxels serve as two of the scan's images and masks."""
    held = {f"{phase} {kind}": digest(getattr(case.volumes[phase], kind).astype(np.float32))
            for phase in PHASES for kind in ("image", "mask")}
    for first, second in combinations(held, 2):
        if held[first] == held[second]:
            yield f"{first} and {second} are the same"


#: Name of a check → the check.
CHECKS: dict[str, Callable[[Case], Iterator[str]]] = {
    "phases": check_phases, "labels": check_labels, "volumes": check_volumes, "contrast": check_contrast,
    "roles": check_roles}
#: What may be accepted: the checks, and that an orientation that cannot be known is taken as stored.
ACCEPTABLE = (*CHECKS, "orientation")


def accepted_checks(text: str, table: Path) -> frozenset[str]:
    """The names in a table's `accept`, separated by blanks, commas or semicolons.

    Raises:
        DataError: if one is not among `ACCEPTABLE`.
    """
    names = frozenset(re.split(r"[\s,;]+", text.strip())) - {""}
    if unknown := sorted(names - set(ACCEPTABLE)):
        raise DataError(f"no check is called {unknown[0]!r}", file=table, field="accept",
                        remedy=f"name checks among {', '.join(ACCEPTABLE)}, separated by blanks")
    return names


def findings(case: Case) -> dict[str, list[str]]:
    """Check → what it finds in `case`; checks that find nothing are left out."""
    found = {name: list(check(case)) for name, check in CHECKS.items()}
    return {name: texts for name, texts in found.items() if texts}


def require_plausible(case: Case, accept: Iterable[str], table: Path) -> tuple[str, ...]:
    """The findings that `accept` covers, as text.

    Raises:
        DataError: naming every other finding; `table` is where it may be accepted.
    """
    found = findings(case)
    if refused := {name: texts for name, texts in found.items() if name not in set(accept)}:
        raise DataError(f"scan {case.scan}: " + "; ".join(text for texts in refused.values() for text in texts),
                        file=case.file, field=", ".join(refused),
                        remedy=f"correct the files; if they are right, write '{' '.join(refused)}' into accept of this "
                               f"scan in {table.name}")
    return tuple(f"{name}: {text}" for name, texts in found.items() for text in texts)


def _outlines(mask: np.ndarray) -> dict[tuple[str, str], float]:
    """For every (cavity, wall): share of the pixels around the cavity, within the slices, that are wall; 0 where there is no
    cavity. Not all of `mask` may be background."""
    depth, *plane = ndimage.find_objects((mask != 0).astype(np.int8))[0]
    seen = mask[depth, *(slice(max(0, side.start - 1), side.stop + 1) for side in plane)]  # and what surrounds them
    shares = {}
    for cavity in LABELS:
        inside = seen == LABELS[cavity]
        around = seen[ndimage.binary_dilation(inside, _IN_PLANE) & ~inside]
        shares |= {(cavity, wall): float(np.count_nonzero(around == LABELS[wall]) / max(1, around.size))
                   for wall in LABELS if wall != cavity}
    return shares
