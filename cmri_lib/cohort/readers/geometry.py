"""Where the voxels of a file lie in the body, and the one order in which the library keeps them.

Axes of a file are stored in any order and direction; its affine says which (NIfTI-1: x to the patient's right, y to
anterior, z upwards; here in DICOM's terms left L, posterior P, superior S). The convention is that of a radiological
display: columns run to the left or, failing that, to posterior; rows run to posterior or, failing that, downwards; the
axis across the slices comes last and runs from base to apex. Axes are exchanged and reversed, never resampled, so no
value changes. A stack of real short-axis slices is oblique, and its apex lies to the left, in front and below; a stack
along an axis of the body has a nominal affine, and its slices run upwards, as base-first files of that kind do.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from cmri_lib.errors import DataError

#: Two statements about one grid agree up to this: relative (headers round to two decimals), degrees (a qform cannot
#: express the shear of an sform), and pixels (offsets are rounded, too).
SPACING_TOLERANCE, ANGLE_TOLERANCE, ORIGIN_TOLERANCE = 0.01, 5.0, 1.0
#: Slices lie at least this much further apart than pixels, or are at least this much fewer than rows and columns.
_APART, _FEWER = 1.5, 2.0
#: In (L, P, S): where columns and rows run, and the apex of a short-axis stack.
_RIGHTWARDS, _DOWNWARDS = np.array([1, 0.5, 0]), np.array([0, 0.5, -1])
_TO_APEX = np.array([1, -1, -1]) / np.sqrt(3)
_NOMINAL_STACK = np.array([1, -1, 1])
_OBLIQUE = 0.75  # cosine: within 41° of the long axis


@dataclass(frozen=True)
class Grid:
    """A regular grid of voxels.

    Attributes:
        shape: (X, Y, Z) voxels along the first, second and third axis.
        spacing: mm along the same axes.
        affine: (4, 4) voxel index to NIfTI's world, mm.
        oriented: whether the file says how the grid lies; otherwise `affine` holds nothing but the spacing.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    affine: np.ndarray
    oriented: bool = True


@dataclass(frozen=True)
class Arrangement:
    """How stored axes become the library's: `axes[i]` is the stored axis that becomes axis i (column index, row index,
    slice index), and `reverse[i]` whether it is read from its end."""

    axes: tuple[int, int, int] = (0, 1, 2)
    reverse: tuple[bool, bool, bool] = (False, False, False)

    def voxels(self, stored: np.ndarray) -> np.ndarray:
        """Stored (Z, Y, X) → (slice, row, column)."""
        if self == Arrangement():
            return stored
        steps = [slice(None, None, -1 if back else 1) for back in self.reverse]
        return np.ascontiguousarray(stored.T.transpose(self.axes)[tuple(steps)].T)

    def grid(self, stored: Grid) -> Grid:
        """The grid of `voxels`."""
        affine = stored.affine.copy()
        for new, (old, back) in enumerate(zip(self.axes, self.reverse)):
            column = stored.affine[:3, old]
            affine[:3, new] = -column if back else column
            if back:
                affine[:3, 3] += column * (stored.shape[old] - 1)
        return Grid(tuple(stored.shape[a] for a in self.axes), tuple(stored.spacing[a] for a in self.axes), affine,
                    stored.oriented)


def voxel_sizes(affine: np.ndarray) -> tuple[float, float, float]:
    """mm per voxel along the three axes of an affine."""
    return tuple(float(size) for size in np.linalg.norm(affine[:3, :3], axis=0))


def arrange(grid: Grid, file: Path, *, nominal: bool = False) -> Arrangement:
    """How the axes of `grid` are brought to the convention.

    Args:
        file: for messages.
        nominal: the cohort's affines are known to be nominal, with x to the left and y to posterior. Files that state
            no orientation are then taken as stored.

    Raises:
        DataError: if the file states no orientation, or does not show which axis lies across the slices.
    """
    if not grid.oriented and nominal:
        return Arrangement()
    if not grid.oriented:
        raise DataError("how the image lies in the body is not stated (qform_code and sform_code are 0)", file=file,
                        field="sform/qform", remedy="write the sform, or accept 'orientation' to take it as stored")
    directions = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    if not nominal:
        directions = directions * np.array([[-1], [-1], [1]])
    across = _slice_axis(grid, file)
    # Ties go to the first pair, the stored order.
    pairs = permutations([axis for axis in range(3) if axis != across])
    column, row = max(pairs, key=lambda pair: round(abs(_RIGHTWARDS @ directions[:, pair[0]])
                                                    + abs(_DOWNWARDS @ directions[:, pair[1]]), 3))
    forwards = (_RIGHTWARDS @ directions[:, column], _DOWNWARDS @ directions[:, row],
                _towards_apex(directions[:, across]))
    return Arrangement((column, row, across), tuple(bool(towards < 0) for towards in forwards))


def _towards_apex(direction: np.ndarray) -> float:
    """Positive if a stack along `direction` (L, P, S) runs from base to apex."""
    oblique = float(direction @ _TO_APEX)
    if abs(oblique) >= _OBLIQUE:
        return oblique
    nearest = np.abs(direction).argmax()
    return float(direction[nearest] * _NOMINAL_STACK[nearest])


def _slice_axis(grid: Grid, file: Path) -> int:
    """The axis across the slices: the one of the largest distance, or else of the fewest voxels."""
    wide, few = (np.argsort(values, kind="stable") for values in (grid.spacing, grid.shape))
    by_distance = int(wide[2]) if grid.spacing[wide[2]] >= _APART * grid.spacing[wide[1]] else None
    by_number = int(few[0]) if _FEWER * grid.shape[few[0]] <= grid.shape[few[1]] else None
    found = {axis for axis in (by_distance, by_number) if axis is not None}
    if len(found) == 1:
        return found.pop()
    problem = (f"axis {by_distance} has the largest spacing, but axis {by_number} the fewest voxels" if found else
               "no axis has a clearly larger spacing or fewer voxels")
    raise DataError(f"which axis lies across the slices cannot be known: {problem}, spacing "
                    f"{_mm(grid.spacing)}, shape {grid.shape}", file=file, field="dim, pixdim",
                    remedy="store short-axis slices as (x, y, slice), or accept 'orientation' to take it as stored")


def disagreement(first: Grid, second: Grid) -> tuple[str, str, str] | None:
    """Where two statements about one grid differ by more than the tolerances: (field, first's value, second's value)
    of the first such difference, or None. What a file does not state agrees with everything."""
    if first.shape != second.shape:
        return "dim", f"shape {first.shape}", f"{second.shape}"
    if not np.allclose(first.spacing, second.spacing, rtol=SPACING_TOLERANCE, atol=0):
        return "pixdim", f"spacing {_mm(first.spacing)}", _mm(second.spacing)
    if not (first.oriented and second.oriented):
        return None
    units = [grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0) for grid in (first, second)]
    cosines = (units[0] * units[1]).sum(axis=0)
    if (cosines < np.cos(np.radians(ANGLE_TOLERANCE))).any():
        worst = int(cosines.argmin())
        return ("sform/qform", *(f"{'axis ' + 'xyz'[worst] + ' along ' if not i else ''}"
                                 f"{tuple(np.round(unit[:, worst], 2).tolist())}" for i, unit in enumerate(units)))
    origins = first.affine[:3, 3], second.affine[:3, 3]
    if np.linalg.norm(origins[0] - origins[1]) > ORIGIN_TOLERANCE * min(first.spacing):
        return "sform/qform", f"its first voxel at {_mm(origins[0])}", _mm(origins[1])
    return None


def _mm(values: object) -> str:
    return " × ".join(f"{float(value):.4g}" for value in values) + " mm"
