"""Whole stacks: the short-axis slices of one heart at one phase, from apex to base, with the same number of planes in all.

Scans differ in how many slices cross the heart, a 3D network wants one shape. So each stack is resampled along the axis
of the ventricle to `planes` equidistant planes from its most apical to its most basal labelled slice. The length of the
axis is thus no part of a stack; the table keeps it as `slice_mm`, the distance between planes. In a set of stacks,
`planes` consecutive rows of `Slices` are one stack, apex first, so whatever measures slices measures stacks too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.preprocessing.pipeline import level
from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError, ParameterError

#: What the slices of a stack have in common.
STACK = ["patient", "scan", "phase"]


def stack_rows(table: pd.DataFrame) -> Iterator[np.ndarray]:
    """The rows of each stack of a table of slices, from apex to base; if a slice is there several times, as samples of a large
    bank are, there are several stacks."""
    for _, part in _numbered(table).groupby([*STACK, "draw"], sort=False):
        yield part.sort_values("height", kind="stable").index.to_numpy()


def volumes_of(table: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str], np.ndarray]]:
    """(patient, scan, phase) and the rows of each volume, its slices in the order of the scan; volumes by name. They are told
    apart as stacks are, but need no height."""
    for (*keys, _), part in _numbered(table).groupby([*STACK, "draw"], sort=True):
        yield tuple(keys), part.sort_values("index").index.to_numpy()


def _numbered(table: pd.DataFrame) -> pd.DataFrame:
    """With a column `draw`, which tells the samples of one slice apart."""
    numbered = table.reset_index(drop=True)
    return numbered.assign(draw=numbered.groupby([*STACK, "index"], sort=False).cumcount())


def resampled(slices: Slices, planes: int) -> Slices:
    """All stacks of `slices`, each resampled to `planes` planes: images linearly between neighbouring slices, labels as
    one plane of shares per label, of which the largest names the label.

    Returns:
        (stacks · planes) slices with `index` 0 … planes − 1 from the apex, their `height`, `level` and `slice_mm`; no tissues.
        A stack of a single slice has no axis and is left out.

    Raises:
        ParameterError: on fewer than two planes.
        DataError: if the heights are unknown, or no stack has two slices.
    """
    if planes < 2:
        raise ParameterError(f"{planes} planes", field="planes", remedy="give at least 2")
    if not np.isfinite(slices.table["height"].to_numpy(float)).all():
        raise DataError("slices of unknown height have no place in a stack", field="height",
                        remedy="take slices that preprocessing has placed between apex and base")
    images, masks, tables = [], [], []
    for rows in stack_rows(slices.table):
        heights = slices.table["height"].to_numpy(float)[rows]
        if heights[-1] <= heights[0]:
            continue
        below, share, height = _places(heights, planes)
        images.append(_between(slices.images[rows], below, share))
        shares = np.stack([slices.masks[rows] == value for value in (0, *LABELS.values())], axis=1).astype(np.float32)
        masks.append(_between(shares, below, share).argmax(1))
        tables.append(_table(slices.table.iloc[rows], below + (share >= 0.5), height))
    if not images:
        raise DataError("no stack has two slices at different heights", field="slices", remedy="give whole scans")
    return Slices(np.concatenate(images), np.concatenate(masks).astype(np.uint8), pd.concat(tables, ignore_index=True))


def _places(heights: np.ndarray, planes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For equidistant planes between the ends of rising `heights` (n,): the slice below each (planes,), how far the plane lies
    on the way to the next slice, in [0, 1], and its height."""
    wanted = np.linspace(heights[0], heights[-1], planes)
    place = np.interp(wanted, heights, np.arange(len(heights)))
    below = np.minimum(place.astype(int), len(heights) - 2)
    return below, place - below, wanted


def _between(values: np.ndarray, below: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(planes, …) of values (n, …), linearly between neighbours."""
    share = share.reshape(-1, *[1] * (values.ndim - 1)).astype(np.float32)
    return (1 - share) * values[below] + share * values[below + 1]


def _table(rows: pd.DataFrame, nearest: np.ndarray, heights: np.ndarray) -> pd.DataFrame:
    spanned = np.ptp(rows["index"].to_numpy(float))  # slices without a label between them are no rows
    apart = rows["slice_mm"].to_numpy(float).mean() * spanned / (len(heights) - 1)
    return rows.iloc[nearest].assign(index=np.arange(len(heights)), height=heights, level=[level(h) for h in heights],
                                     slice_mm=apart)


def as_volumes(stacks: Slices, planes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (S, planes, H, W) float32 and label maps (S, planes, H, W) uint8 of S resampled stacks.

    Raises:
        DataError: unless every `planes` consecutive rows are one stack, apex first.
    """
    table, count = stacks.table, len(stacks) // planes
    whole = len(stacks) == count * planes
    if not whole or (table["index"].to_numpy() != np.tile(np.arange(planes), count)).any() or \
            any((table[column].to_numpy().reshape(count, planes) != table[column].to_numpy()[::planes, None]).any()
                for column in STACK):
        raise DataError(f"{len(stacks)} slices are not stacks of {planes} planes", field="stacks",
                        remedy="make them with cohort.stacks.resampled")
    shape = count, planes, stacks.size, stacks.size
    return stacks.images.reshape(shape), stacks.masks.reshape(shape)


def mixed(stacks: Slices, planes: int, seed: int) -> Slices:
    """Each plane from another patient's stack, at the same height and, if it can be, phase: every slice is real, no stack is.

    The control of all measures of coherence. A stack is named after the patient of its first plane, so that intervals are over
    as many; it is made of real images, and its `source` says so.

    Raises:
        DataError: if there are fewer patients than two.
    """
    as_volumes(stacks, planes)
    first = stacks.table.iloc[::planes]
    patients, phases = first["patient"].to_numpy(), first["phase"].to_numpy()
    if len(set(patients)) < 2:
        raise DataError("planes of one patient cannot be mixed", field="patient", remedy="give stacks of several patients")
    generator, chosen = np.random.default_rng(seed), []
    for stack in range(len(patients)):
        lenders = [stack]
        for _ in range(1, planes):
            others = np.flatnonzero((patients != patients[lenders[-1]]) & (phases == phases[stack]))
            others = others if len(others) else np.flatnonzero(patients != patients[lenders[-1]])
            lenders.append(int(generator.choice(others)))
        chosen.append(np.array(lenders) * planes + np.arange(planes))
    index = np.concatenate(chosen)
    own = {column: np.repeat(first[column].to_numpy(), planes) for column in (*STACK, "split")}
    return Slices(stacks.images[index], stacks.masks[index], stacks.table.assign(**own))
