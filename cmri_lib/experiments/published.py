"""Finished trainings that the repository ships: DVC's folder ``trainings``, laid out as ``work``.

`train_or_load` looks there before it trains, so a clone has them in minutes and trains only what its reader changes.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

import torch

from cmri_lib.cohort.data_sets import is_virtual
from cmri_lib.cohort.whole_folder import whole_folder
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.training.checkpoint import read_tensors
from cmri_lib.training.kept import TURN
from cmri_lib.training.shared import launched


def restore(study: Study, folder: Path) -> None:
    """Copy the published files of a training to `folder`, a place below ``work``, unless something is there already; it
    appears there complete or not at all. Whether the files fit is for `training.train` to say.

    Raises:
        DataError: if the disk refuses.
    """
    source = published_folder(study, folder)
    with launched().main_process_first():  # of several processes one copies, and none reads half of it
        if source.is_dir() and not folder.exists():
            with whole_folder(folder, field="trainings", problem="a published training cannot be copied",
                              remedy="make room on the disk, and start again") as half:
                shutil.copytree(source, half, dirs_exist_ok=True)


def publish(study: Study, folders: Iterable[Path], final: Collection[Path] = ()) -> list[Path]:
    """Copy finished trainings to ``trainings``, the snapshots kept on the way included; returns what is new there. Weights that
    are shipped stay as they are, whatever code they have been found to fit since.

    Args:
        final: those of which the final weights alone are shipped: no curve is drawn over them.

    Raises:
        DataError: if they have learnt from real patients.
    """
    if not is_virtual(study.dataset):  # a network remembers those it has learnt from
        raise DataError(f"{study.dataset} holds real patients", field="dataset",
                        remedy="publish weights trained on phantoms alone")
    new = []
    for folder in folders:
        target = published_folder(study, folder)
        finished, known = folder / "weights.safetensors", published_weights(study, folder)
        if finished.exists() and not (known.exists() and _same_weights(finished, known)):
            shutil.rmtree(target, ignore_errors=True)
            left = ("checkpoint.*", "*.partial", TURN, *(["snapshot-*"] if folder in final else []))
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns(*left))
            new.append(target)
    return new


def _same_weights(first: Path, second: Path) -> bool:
    one, other = read_tensors(first), read_tensors(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def is_published(study: Study, folder: Path) -> bool:
    """Whether the weights of the training at `folder`, a place below ``work``, are shipped."""
    return published_weights(study, folder).exists()


def published_weights(study: Study, folder: Path) -> Path:
    """Where the weights of the training at `folder`, a place below ``work``, are shipped, if they are."""
    return published_folder(study, folder) / "weights.safetensors"


def published_folder(study: Study, folder: Path) -> Path:
    """Where the training at `folder`, a place below ``work``, is shipped, if it is."""
    return study.root / "trainings" / folder.relative_to(study.root / "work")
