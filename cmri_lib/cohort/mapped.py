"""Arrays that stay on disk: safetensors as memory maps, read where they are looked at, so that a set may exceed the memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

_TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "U8": np.uint8}
#: Bytes that a check looks at at once.
BLOCK = 2**25


def mapped_arrays(file: Path) -> dict[str, np.ndarray]:
    """Name → array of a safetensors file, mapped copy-on-write: what is changed in memory does not change the file.

    Raises:
        SafetensorError, OSError: if it is no such file, or cut off.
        KeyError: if it holds another type than floats, whole numbers of 32 or 64 bits, or bytes.
    """
    with safe_open(file, "np") as opened:  # compares the header with the length of the file
        names = list(opened.keys())
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    return {name: _mapped(file, 8 + length + header[name]["data_offsets"][0], header[name]) for name in names}


def _mapped(file: Path, offset: int, entry: Mapping[str, object]) -> np.ndarray:
    shape, kind = tuple(entry["shape"]), _TYPES[entry["dtype"]]
    if 0 in shape:  # nothing can be mapped
        return np.empty(shape, kind)
    return np.memmap(file, kind, "c", offset, shape).view(np.ndarray)


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays` as safetensors in the place of `file`. Who has mapped the file of before keeps that one."""
    partial = file.with_suffix(".partial")
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial)
    os.replace(partial, file)


def blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """`array` in parts along its first axis, of about `BLOCK` bytes each."""
    rows = max(1, BLOCK // max(1, array[:1].nbytes))
    return (array[start:start + rows] for start in range(0, len(array), rows))
