"""Finished trainings that the repository ships: DVC's folder ``trainings``, laid out as ``work``.

`train_or_load` looks there before it trains, so a clone has them in minutes and trains only what its reader changes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cmri_lib.cohort.data_sets import is_virtual
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.training import TrainSettings
from cmri_lib.training.checkpoint import read_note, read_tensors
from cmri_lib.training.kept import TURN, turn_at
from cmri_lib.training.shared import launched

#: In the folder of a training: its end, and how far it has come before that.
WEIGHTS, CHECKPOINT = "weights.safetensors", "checkpoint.safetensors"


def note_of(file: Path, settings: TrainSettings) -> dict[str, Any] | None:
    """The note of weights or of a checkpoint that were trained with these settings; None of others, or if there is no file.

    Raises:
        CheckpointError: if the file is damaged.
    """
    note = read_note(file) if file.exists() else {}
    return note if note.get("settings") == asdict(settings) else None


def restore(study: Study, folder: Path, settings: TrainSettings) -> None:
    """Copy the published files of a training with `settings` to `folder`, a place below ``work``, in the place of what other
    settings have left there. One with these settings stays, finished or under way. The weights come last: a copy that is cut
    short is no finished training. Whether data and network fit too is for `training.train` to say.

    Raises:
        DataError: if the disk refuses.
        CheckpointError: if a file is damaged.
    """
    source = published_folder(study, folder)

    def wanted() -> bool:
        return not any(note_of(folder / name, settings) for name in (WEIGHTS, CHECKPOINT))

    if note_of(source / WEIGHTS, settings) and wanted():
        # Nobody else is in there; of several processes one copies, and none reads half of it.
        with turn_at(folder), launched().main_process_first():
            if wanted():
                _copy(source, folder)


def _copy(source: Path, folder: Path) -> None:
    try:
        for old in folder.iterdir():
            if old.is_file() and old.name != TURN:
                old.unlink()
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(WEIGHTS), dirs_exist_ok=True)
        half = folder / f"{WEIGHTS}.partial"
        shutil.copyfile(source / WEIGHTS, half)
        os.replace(half, folder / WEIGHTS)
    except OSError as error:
        raise DataError(f"a published training cannot be copied ({error})", file=folder, field="trainings",
                        remedy="make room on the disk, and start again") from error


def publish(study: Study, trainings: Mapping[Path, TrainSettings],
            final: Collection[Path] = ()) -> tuple[list[Path], list[Path]]:
    """Copy finished trainings to ``trainings``, the snapshots kept on the way included. Weights that are shipped stay as they
    are, whatever code they have been found to fit since.

    Args:
        trainings: their folders below ``work``, and the settings of each.
        final: those of which the final weights alone are shipped: no curve is drawn over them.

    Returns:
        what is new there; and the folders below ``work`` that are left out, for their weights are of other settings.

    Raises:
        DataError: if they have learnt from real patients.
    """
    if not is_virtual(study.dataset):  # a network remembers those it has learnt from
        raise DataError(f"{study.dataset} holds real patients", field="dataset",
                        remedy="publish weights trained on phantoms alone")
    new, left_out = [], []
    for folder, settings in trainings.items():
        finished, target = folder / WEIGHTS, published_folder(study, folder)
        if finished.exists() and note_of(finished, settings) is None:
            left_out.append(folder)
        elif finished.exists() and not _ships(target / WEIGHTS, finished, settings):
            shutil.rmtree(target, ignore_errors=True)
            left = ("checkpoint.*", "*.partial", TURN, *(["snapshot-*"] if folder in final else []))
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns(*left))
            new.append(target)
    return new, left_out


def _ships(known: Path, finished: Path, settings: TrainSettings) -> bool:
    """Whether the published file holds the same weights, as those of the same settings."""
    if note_of(known, settings) is None:
        return False
    one, other = read_tensors(finished), read_tensors(known)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def published_weights(study: Study, folder: Path) -> Path:
    """Where the weights of the training at `folder`, a place below ``work``, are shipped, if they are."""
    return published_folder(study, folder) / WEIGHTS


def published_folder(study: Study, folder: Path) -> Path:
    """Where the training at `folder`, a place below ``work``, is shipped, if it is."""
    return study.root / "trainings" / folder.relative_to(study.root / "work")
