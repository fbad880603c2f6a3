"""What has been trained is kept: a finished training is loaded, one under way is taken up, one that somebody else is at is
waited for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout
from torch import nn
from tqdm import tqdm

from cmri_lib.errors import CheckpointError
from cmri_lib.training.checkpoint import load_weights, read_note, read_tensors, write_tensors
from cmri_lib.training.shared import launched

#: The relative difference that other processors make in the steps of a replay: between an AMD EPYC and an Intel Xeon 1e-7 for
#: denoisers, 1.3e-3 for the gradient of DCGAN's generator.
REPLAY_TOLERANCE = 5.0e-3
#: Who holds this file in the folder of a training is at it. DVC does not look at it.
TURN = "training.lock"


class Trains(Protocol):
    """A training that can be gone through, see `loop.Training`: `first_steps` are those that a replay repeats, which it notes
    itself where `notes_steps` says so."""

    notes_steps: bool
    noted: int
    first_steps: list[list[float]]

    def go(self) -> pd.DataFrame: ...
    def replay(self, steps: int) -> list[list[float]]: ...


def train_unless_done(model: nn.Module, folder: Path, identity: dict[str, str],
                      training: Callable[..., Trains]) -> pd.DataFrame:
    """The log of the training that `training` makes of `model`, loaded if `folder` holds it finished, else gone through to its
    end; `identity` is its fingerprint. For every kind of training that keeps what it has done."""
    weights, checkpoint = folder / "weights.safetensors", folder / "checkpoint.safetensors"
    if not weights.exists() or read_note(weights)["identity"] != identity:
        with turn_at(folder):  # whoever was here before may have finished it
            untrained = deepcopy(model)
            of_this = partial(_is_of_this_training, identity=identity,
                              replay=lambda steps: training(deepcopy(untrained), alone=True).replay(steps))
            if not of_this(weights):
                of_this(checkpoint)  # then it bears the new identity
                this = training(model)
                if not this.notes_steps:
                    this.first_steps = training(untrained, alone=True).replay(this.noted)
                return this.go()
    load_weights(model, weights)
    model.to(Accelerator().device).eval()
    return read_log(folder)


@contextmanager
def turn_at(folder: Path) -> Iterator[None]:
    """``with turn_at(folder):`` no other command is in there; it waits until that is so. A command that is killed is out at
    once. Of the processes that share a training the main one takes the turn for all."""
    state, turn = launched(), FileLock(folder / TURN)
    try:
        if state.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                turn.acquire(blocking=False)
            except Timeout:
                tqdm.write(f"{folder.name}: another command is training it; waiting until it has", file=sys.stderr)
                turn.acquire()
        state.wait_for_everyone()
        yield
    finally:
        turn.release()


def _is_of_this_training(file: Path, identity: dict[str, str], replay: Callable[[int], list[list[float]]]) -> bool:
    """Whether `file` holds what this very training has written. If its code or torch alone differs, `replay` decides; what it
    confirms bears the new identity from then on."""
    if not file.exists():
        return False
    note = read_note(file)
    changed = {part for part in identity if note["identity"].get(part) != identity[part]}
    another_torch = {"torch", "model"} if "torch" in changed else set()  # it says other things about the same network
    if not changed or not changed <= {"code"} | another_torch:
        return not changed
    first = note.get("first_steps", [])
    again = replay(len(first))
    same = (bool(first) and list(map(len, first)) == list(map(len, again))  # not in every step does every group move
            and np.allclose([*chain(*first)], [*chain(*again)], rtol=REPLAY_TOLERANCE, atol=0))
    accelerator = Accelerator()
    same = broadcast_object_list([same])[0]  # the note is of the first process, whose share of the batches it repeats
    if same and accelerator.is_main_process:
        write_tensors(file, read_tensors(file), note | {"identity": identity})
    accelerator.wait_for_everyone()
    return same


def read_log(folder: str | Path) -> pd.DataFrame:
    """The log of a finished training. Raises CheckpointError if it is missing or damaged."""
    file = Path(folder) / "log.csv"
    try:
        log = pd.read_csv(file)
        log[["step", "images", "seconds"]].astype(float)
        return log
    except (OSError, ValueError, KeyError) as cause:
        raise CheckpointError(f"not the log of a training ({cause})", file=file,
                              remedy="delete the training's folder and train again") from cause
