"""Valid scans restated or spoilt in their geometry and content, so that the true answer is known.

Each mutation takes the four files of a scan and changes them: `RESTATED` says the same in other words, so the same
case must be read; `SPOILT` contradicts itself or a heart, so the scan must be refused.

    python tests/cohort/mutations.py --count 10000      # the nightly size; prints what was found of each kind
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
from layout_writers import affine, random_case, write_csv

from cmri_lib.cohort.case import PHASES, Case
from cmri_lib.cohort.readers.cases import read_cohort
from cmri_lib.errors import StudyError

SHAPE = (16, 16, 15)  # enough voxels that shuffled ones show no contrast by chance
SECONDS = 20  # for one scan; more is a hang
MEMORY_BYTES = 128 << 20
CHUNK = 99


@dataclass(frozen=True)
class Stored:
    """A NIfTI file before it is written: voxels (X, Y, Z), and what its header states of geometry."""

    voxels: np.ndarray
    pixdim: np.ndarray
    sform: np.ndarray | None
    qform: np.ndarray | None = None

    def turned(self, axes: tuple[int, ...], signs: np.ndarray) -> Stored:
        """Axes stored in another order and direction, and stated so."""
        restated = [None if form is None else form @ nib.orientations.inv_ornt_aff(
            np.c_[np.argsort(axes), signs[np.argsort(axes)]], self.voxels.shape) for form in (self.sform, self.qform)]
        flipped = self.voxels.transpose(axes)[tuple(slice(None, None, int(s)) for s in signs)]
        return Stored(flipped, self.pixdim[list(axes)], *restated)

    def write(self, path: Path) -> None:
        """Write the file byte by byte; nibabel sets the forms only."""
        header = nib.Nifti1Header()
        header.set_data_dtype(self.voxels.dtype)
        header.set_data_shape(self.voxels.shape)
        if self.qform is not None:
            header.set_qform(self.qform, 1)
        if self.sform is not None:
            header.set_sform(self.sform, 1)
        header["pixdim"][1:4], header["xyzt_units"] = self.pixdim, 2
        header["vox_offset"], header["magic"] = 352, b"n+1"
        path.write_bytes(header.binaryblock + bytes(4) + self.voxels.tobytes(order="F"))


Scan = dict[tuple[str, str], Stored]  # (phase, "image" or "mask") → file
Mutation = Callable[[Scan, np.random.Generator], Scan]


def stored(case: Case) -> Scan:
    """The files of `case`."""
    spacing = np.array(case.spacing[::-1])
    return {(phase, kind): Stored(getattr(case.volumes[phase], kind).T.astype(dtype), spacing, affine(case.spacing))
            for phase in PHASES for kind, dtype in (("image", np.float32), ("mask", np.uint8))}


def write_scan(folder: Path, scan: Scan, patient: str = "p", accept: str = "") -> list[list[str]]:
    """Write the files; returns the rows of the table."""
    rows = []
    for phase in PHASES:
        names = [f"{patient}_{phase}_{kind}.nii" for kind in ("image", "mask")]
        for name, kind in zip(names, ("image", "mask")):
            scan[phase, kind].write(folder / name)
        rows.append([patient, phase, *names, accept])
    return rows


def read_scans(folder: Path, *scans: Scan, accept: str = "") -> list[Case]:
    """What the reader makes of `scans`, one patient each."""
    rows = [row for number, scan in enumerate(scans) for row in write_scan(folder, scan, f"p{number}", accept)]
    write_csv(folder / "scans.csv", [["patient", "phase", "image", "mask", "accept"], *rows])
    return read_cohort(folder, "folder").cases


def _of_one(change: Callable[[Stored, np.random.Generator], Stored]) -> Mutation:
    """`change` in one of the four files."""
    def mutation(scan: Scan, rng: np.random.Generator) -> Scan:
        key = list(scan)[rng.integers(len(scan))]
        return scan | {key: change(scan[key], rng)}
    return mutation


def _of_all(change: Callable[[Stored, np.random.Generator], Stored]) -> Mutation:
    """The same `change` in all four files."""
    def mutation(scan: Scan, rng: np.random.Generator) -> Scan:
        seed = int(rng.integers(1 << 30))
        return {key: change(file, np.random.default_rng(seed)) for key, file in scan.items()}
    return mutation


def _of_kind(kind: str, change: Callable[[Stored, np.random.Generator], Stored], phases: int = 2) -> Mutation:
    """The same `change` in the images or masks of one or both phases."""
    def mutation(scan: Scan, rng: np.random.Generator) -> Scan:
        chosen = rng.permutation(PHASES)[:phases]
        seed = int(rng.integers(1 << 30))
        return scan | {(p, kind): change(scan[p, kind], np.random.default_rng(seed)) for p in chosen}
    return mutation


def _turned(file: Stored, rng: np.random.Generator) -> Stored:
    return file.turned(tuple(rng.permutation(3).tolist()), rng.choice([-1, 1], 3))


def _two_forms(file: Stored, rng: np.random.Generator) -> Stored:
    return replace(file, qform=file.sform)


def _qform_only(file: Stored, rng: np.random.Generator) -> Stored:
    return replace(file, sform=None, qform=file.sform)


def _rounded(file: Stored, rng: np.random.Generator) -> Stored:
    """pixdim and offset off by as much as rounding may leave."""
    shift = np.eye(4)
    shift[:3, 3] = rng.uniform(-0.5, 0.5, 3)
    return replace(file, pixdim=file.pixdim * rng.uniform(0.997, 1.003, 3), sform=shift @ file.sform)


def _scaled_axis(rng: np.random.Generator) -> np.ndarray:
    """Factors of the three spacings, one of which is wrong by 5 % to a factor of 4, up or down."""
    factors = np.ones(3)
    factors[rng.integers(3)] = rng.uniform(1.05, 4) ** rng.choice([-1, 1])
    return factors


def _pixdim(file: Stored, rng: np.random.Generator) -> Stored:
    return replace(file, pixdim=file.pixdim * _scaled_axis(rng))


def _spacing(file: Stored, rng: np.random.Generator) -> Stored:
    factors = _scaled_axis(rng)
    return replace(file, pixdim=file.pixdim * factors, sform=file.sform @ np.diag([*factors, 1]))


def _shifted(file: Stored, rng: np.random.Generator) -> Stored:
    shift = np.eye(4)
    shift[rng.integers(3), 3] = rng.uniform(5, 80) * rng.choice([-1, 1])
    return replace(file, sform=shift @ file.sform)


def _rotated(file: Stored, rng: np.random.Generator) -> Stored:
    angle, axes = np.radians(rng.uniform(8, 80)), rng.permutation(3)[:2]
    turn = np.eye(4)
    turn[np.ix_(axes, axes)] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return replace(file, sform=turn @ file.sform)


def _forms_differ(file: Stored, rng: np.random.Generator) -> Stored:
    return replace(file, qform=_rotated(file, rng).sform)


def _says_nothing(file: Stored, rng: np.random.Generator) -> Stored:
    return replace(file, sform=None)


def _other_size(file: Stored, rng: np.random.Generator) -> Stored:
    factor = float(rng.choice([0.1, 10.0]))
    return replace(file, pixdim=file.pixdim * factor, sform=file.sform @ np.diag([factor] * 3 + [1]))


def _labels(file: Stored, rng: np.random.Generator) -> Stored:
    orders = list(permutations((1, 2, 3)))[1:]
    return replace(file, voxels=np.array([0, *orders[rng.integers(len(orders))]], np.uint8)[file.voxels])


def _one_label(file: Stored, rng: np.random.Generator) -> Stored:
    """A structure's label goes to the background: the LV is gone, or its wall."""
    return replace(file, voxels=np.where(file.voxels == 1, 0, file.voxels).astype(np.uint8))


def _blank(file: Stored, rng: np.random.Generator) -> Stored:
    return replace(file, voxels=np.full_like(file.voxels, rng.integers(0, 1000)))


def _blank_slice(file: Stored, rng: np.random.Generator) -> Stored:
    voxels = file.voxels.copy()
    voxels[:, :, rng.integers(voxels.shape[2])] = rng.integers(0, 1000)
    return replace(file, voxels=voxels)


def _inverted(file: Stored, rng: np.random.Generator) -> Stored:
    return replace(file, voxels=file.voxels.max() - file.voxels)


def _noise(file: Stored, rng: np.random.Generator) -> Stored:
    return replace(file, voxels=rng.permutation(file.voxels.ravel()).reshape(file.voxels.shape))


def _huge(file: Stored, rng: np.random.Generator) -> Stored:
    return replace(file, voxels=file.voxels * np.float32(1e30))


def _tiny(file: Stored, rng: np.random.Generator) -> Stored:
    return replace(file, voxels=file.voxels * np.float32(1e-30))


def _exchanged(*kinds: str) -> Mutation:
    def mutation(scan: Scan, rng: np.random.Generator) -> Scan:
        return scan | {(p, k): scan[q, k] for p, q in zip(PHASES, PHASES[::-1]) for k in kinds}
    return mutation


def _twice(kind: str) -> Mutation:
    def mutation(scan: Scan, rng: np.random.Generator) -> Scan:
        kept, lost = rng.permutation(PHASES)
        return scan | {(lost, kind): scan[kept, kind]}
    return mutation


def _mask_as_image(scan: Scan, rng: np.random.Generator) -> Scan:
    phase = PHASES[rng.integers(2)]
    mask = scan[phase, "mask"]
    return scan | {(phase, "image"): replace(mask, voxels=mask.voxels.astype(np.float32))}


def _image_as_mask(scan: Scan, rng: np.random.Generator) -> Scan:
    phase = PHASES[rng.integers(2)]
    return scan | {(phase, "mask"): scan[phase, "image"]}


#: Says the same: the very case is read.
RESTATED: dict[str, Mutation] = {
    "axes of one file": _of_one(_turned), "axes of all files": _of_all(_turned),
    "qform beside sform": _of_all(_two_forms), "qform only": _of_all(_qform_only), "qform in one": _of_one(_qform_only),
    "axes and qform": lambda scan, rng: _of_all(_two_forms)(_of_one(_turned)(scan, rng), rng),
    "rounded": _of_one(_rounded),
    "mask says nothing": _of_kind("mask", _says_nothing)}
#: Contradicts itself or a heart: refused.
SPOILT: dict[str, Mutation] = {
    "pixdim against sform": _of_one(_pixdim), "pixdim against sform in all": _of_all(_pixdim),
    "spacing of one file": _of_one(_spacing), "offset of one file": _of_one(_shifted),
    "direction of one file": _of_one(_rotated),
    "sform against qform": _of_one(_forms_differ), "images say nothing": _of_kind("image", _says_nothing),
    "size of all files": _of_all(_other_size),
    "labels in another order": _of_kind("mask", _labels), "labels of one phase": _of_kind("mask", _labels, 1),
    "no LV": _of_kind("mask", _one_label), "no LV in one phase": _of_kind("mask", _one_label, 1),
    "blank image": _of_kind("image", _blank, 1), "blank slice": _of_kind("image", _blank_slice, 1),
    "inverted": _of_kind("image", _inverted, 1), "shuffled image": _of_kind("image", _noise, 1),
    "huge": _of_kind("image", _huge, 1), "tiny": _of_kind("image", _tiny, 1),
    "ED and ES exchanged": _exchanged("image", "mask"), "masks exchanged": _exchanged("mask"),
    "image twice": _twice("image"), "mask twice": _twice("mask"),
    "mask as image": _mask_as_image, "image as mask": _image_as_mask}


def same(first: Case, second: Case) -> bool:
    """Whether images, masks and spacing are equal (the spacing as far as rounding goes)."""
    return np.allclose(first.spacing, second.spacing, rtol=0.005) and all(
        np.array_equal(getattr(first.volumes[phase], kind), getattr(second.volumes[phase], kind))
        for phase in PHASES for kind in ("image", "mask"))


def outcomes(folder: Path, count: int, seed: int = 0) -> Counter[tuple[str, str]]:
    """(mutation, "as it must be" or what was wrong) → how often, over `count` mutated scans of different hearts. An
    error that is not the study's own is not caught."""
    kinds, found = list(RESTATED | SPOILT), Counter()
    for number in range(count):
        name, rng = kinds[number % len(kinds)], np.random.default_rng((seed, number))
        truth = random_case(int(rng.integers(1 << 30)), shape=SHAPE)
        try:
            signal.alarm(SECONDS)
            case, = read_scans(folder, (RESTATED | SPOILT)[name](stored(truth), rng))
            wrong = "accepted in silence" if name in SPOILT else "" if same(case, truth) else "read as another case"
        except StudyError as error:
            clear = error.file and error.field and error.remedy in str(error)
            wrong = f"refused: {error}" if name in RESTATED else "" if clear else "unclear message"
        finally:
            signal.alarm(0)
        found[name, wrong or "as it must be"] += 1
    return found


def main() -> int:
    """Run many; returns 1 if one went wrong."""
    parser = argparse.ArgumentParser(description="Mutate the geometry and content of valid scans and read them.")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time, whatever the count")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    begun, total, before = time.time(), Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        while total.total() < given.count and time.time() - begun < given.seconds:
            part = min(CHUNK, given.count - total.total())
            total += outcomes(Path(folder), part, given.seed + total.total())
            before = before or _memory()  # after the first part: what the libraries allocate once is no growth
    for (name, outcome), number in sorted(total.items()):
        print(f"{number:6}  {name}: {outcome}")
    grown = _memory() - before
    print(f"{total.total()} scans in {time.time() - begun:.0f} s, memory grew by {grown / 2**20:.1f} MiB")
    return int(grown > MEMORY_BYTES or any(outcome != "as it must be" for _, outcome in total))


def _memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
