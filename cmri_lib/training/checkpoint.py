"""Weights and training state on disk: safetensors, written atomically, never unpickled.

One file holds everything a training needs to go on, so a kill at any moment leaves either the old or the new
checkpoint, never half of one. No random state is stored: the loop derives all randomness from (seed, step).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cmri_lib.errors import CheckpointError


def write_tensors(file: Path, tensors: dict[str, Tensor], note: dict) -> None:
    """Write tensors and a JSON note to `file` in one atomic step."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, partial,
              metadata={"note": json.dumps(note)})
    os.replace(partial, file)


def read_note(file: Path) -> dict:
    """The JSON note of a file written by `write_tensors`. Raises CheckpointError if it is not such a file."""
    try:
        with safe_open(file, "pt") as opened:
            return json.loads((opened.metadata() or {})["note"])
    except (SafetensorError, OSError, KeyError, ValueError) as cause:
        raise CheckpointError(f"not a checkpoint of this study ({cause})", file=file,
                              remedy="delete the file and train again") from cause


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of `file`, on the CPU."""
    read_note(file)
    with safe_open(file, "pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}


def load_weights(model: nn.Module, file: Path) -> nn.Module:
    """Load final weights into `model`. Raises CheckpointError if names or shapes differ."""
    try:
        model.load_state_dict(read_tensors(file))
    except RuntimeError as cause:
        raise CheckpointError(f"weights do not fit the model ({str(cause).splitlines()[-1].strip()})", file=file,
                              remedy="train again, or build the model with the parameters it was trained with") from cause
    return model


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of 32 bits in 16, except where one holds a number beyond them: weights are published in half the space."""
    limit = torch.finfo(torch.float16).max
    return {name: value.half() if value.dtype == torch.float32 and not (value.abs() > limit).any() else value
            for name, value in tensors.items()}


def optimiser_tensors(name: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Optimiser state as flat named tensors ``optimiser.<name>.<parameter index>.<key>``."""
    state = optimiser.state_dict()["state"]
    return {f"optimiser.{name}.{index}.{key}": torch.as_tensor(value)
            for index, entry in state.items() for key, value in entry.items()}


def restore_optimiser(name: str, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimiser_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    prefix = f"optimiser.{name}."
    for key, value in tensors.items():
        if key.startswith(prefix):
            index, field = key.removeprefix(prefix).split(".", 1)
            state.setdefault(int(index), {})[field] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
