"""Banks of samples: drawn once from a trained run under the conditions of a split, and read by all later notebooks.

What is drawn is kept with a digest of everything that it depends on, and drawn again only where that differs: another weight,
another line of the sampler's code, another number of its steps, other conditions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.pipeline import notebook_of
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.generators.base import Generator, draw
from cmri_lib.systems.system import file_name
from cmri_lib.training.fingerprint import code_digest, digest, model_digest
from cmri_lib.training.kept import turn_at
from cmri_lib.training.marks import unmarked

#: Beside the samples of a bank that is kept: the digest of what they depend on.
KEY_FILE = "key.txt"


class Drawn(Protocol):
    """What a bank can be drawn from: a run, or a chain of two systems."""

    id: str
    stage: str
    folder: str


def sampling_conditions(slices: Slices, samples: int, seed: int, split: str = "test") -> Slices:
    """About `samples` slices of `split` to draw synthetic ones for: whole phases of scans in random order, and all of
    them again if there are too few. At least one phase of every patient comes before any second one.

    Raises:
        DataError: if the split is empty.
    """
    table = slices.table[(slices.table["split"] == split).to_numpy()]
    if table.empty:
        raise DataError(f"no slices of split {split!r}", field="split", remedy="check the list of patients")
    generator = np.random.default_rng(seed)
    volumes = [part.index.to_numpy() for _, part in table.groupby(["scan", "phase"], sort=True)]
    volumes = [volumes[i] for i in generator.permutation(len(volumes))]
    seen: dict[str, int] = {}
    turn = []
    for volume in volumes:
        patient = table.loc[volume[0], "patient"]
        turn.append(seen.setdefault(patient, 0))
        seen[patient] += 1
    order = [volumes[i] for i in np.argsort(turn, kind="stable")]
    chosen: list[np.ndarray] = []
    while sum(map(len, chosen)) < samples:
        chosen.append(order[len(chosen) % len(order)])
    return slices.take(np.concatenate(chosen))


def draw_bank(study: Study, of: Drawn, generator: Generator, conditions: Slices, name: str | None = None, *,
              below: Path | None = None, **choices: object) -> Slices:
    """One sample for every slice of `conditions`, of any split or with masks that no patient has; kept.

    Args:
        name: of the conditions; by default the split that they come from.
        below: the folder of all banks; by default that of samples which several notebooks read.
        choices: for the sampler, such as its kind; each set of choices has a bank of its own.

    Raises:
        DataError: if the conditions come from several splits and have no name.
    """
    chosen = [f"{key} {value}" for key, value in sorted(choices.items())]
    folder = bank_folder(study, of, " ".join([_split_of(conditions) if name is None else name, *chosen]), below)
    arrays = (conditions.images, conditions.masks, conditions.tissues, conditions.partners)
    key = digest([f"{of.id} {study.seed}".encode(), conditions.table.to_csv().encode(),
                  *(array.tobytes() for array in arrays if array is not None),
                  drawing_digest(generator).encode(), code_digest(draw).encode(), *(one.encode() for one in chosen)])
    return kept_bank(folder, key, len(conditions),
                     lambda _: draw(generator, conditions, of.id, seed=study.seed, **choices))


def drawing_digest(generator: Generator) -> str:
    """Digest of what a trained generator draws by default: `generator_digest`, and how its samplers are set (solver, steps,
    clipping, temperature). The latter are dataclasses, in which no training is told from another."""
    chosen = [f"{name}.{key}={value!r}" for name, module in generator.named_modules()
              for key, value in sorted(vars(module).items()) if is_dataclass(value)]
    return digest(part.encode() for part in (generator_digest(generator), *chosen))


def generator_digest(generator: Generator) -> str:
    """Digest of a trained generator: its weights, its plain attributes and its code, not of how its sampler is set. Just
    trained it is the same as loaded, see `unmarked`."""
    return model_digest(unmarked(generator)) + code_digest(*generator.modules())


def kept_bank(folder: Path, key: str, count: int, make: Callable[[int], Slices]) -> Slices:
    """The first `count` slices of what was drawn into `folder` under the same `key`; drawn and kept there if there are
    none, or fewer. They are read from there in either case, so that a second run computes with the same numbers.

    Args:
        key: a digest of everything that the samples depend on, but for their number.
        make: number → samples, of which the first are the same whatever the number.
    """
    note = folder / KEY_FILE
    with turn_at(folder):  # another command may be drawing it
        found = Slices.load(folder) if note.exists() and note.read_text(encoding="utf-8") == key else None
        if found is None or len(found) < count:
            note.unlink(missing_ok=True)  # a bank that is half written has no key
            make(count).save(folder)
            note.write_text(key, encoding="utf-8")
            found = Slices.load(folder)
        return found.take(np.arange(count))


def load_bank(study: Study, of: Drawn, name: str = "test") -> Slices:
    """The bank that `draw_bank` saved. Raises DataError, which names the notebook that draws it, if there is none."""
    folder = bank_folder(study, of, name)
    if not (file := folder / "slices.safetensors").exists():
        number = notebook_of(study, folder)
        draws = f"draw them: python -m cmri_lib.run {number} --profile {study.profile} --dataset {study.dataset}"
        raise DataError(f"no samples of {of.id}", file=file, remedy=draws if number else "run the notebook that draws them")
    return Slices.load(folder)


def bank_folder(study: Study, of: Drawn, name: str, below: Path | None = None) -> Path:
    """Where the samples of a run under conditions `name` lie, see `draw_bank`."""
    return (below or study.work("banks")) / of.stage / of.folder / file_name(name)


def _split_of(conditions: Slices) -> str:
    splits = set(conditions.table["split"])
    if len(splits) != 1:
        raise DataError(f"conditions of splits {sorted(splits)}", field="split", remedy="give the bank a name")
    return splits.pop()
