"""Finding files in folders that people have copied, linked and unpacked: hidden files are nobody's data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cmri_lib.errors import DataError

#: Endings of a volume. Whichever of them a layout writes, a cohort may have been unpacked or packed.
ENDINGS = (".nii.gz", ".nii")


def hidden(name: str) -> bool:
    """Whether a name is hidden: macOS leaves a ``._NAME`` beside every NAME when it copies to other disks."""
    return name.startswith(".") or name == "__MACOSX"


def visible_files(folder: Path) -> Iterator[Path]:
    """Every file below `folder` in order of name, through linked folders, too; a link to a folder above is no way."""
    return _below(folder, {folder.resolve()})


def _below(folder: Path, above: set[Path]) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"cannot be listed ({error.strerror})", file=folder, field="path",
                        remedy="give yourself permission to read the folder") from error
    for entry in entries:
        if hidden(entry.name):
            continue
        if entry.is_dir():
            if (place := entry.resolve()) not in above:
                yield from _below(entry, above | {place})
        else:
            yield entry


def volume(stem: Path) -> Path:
    """The volume called `stem` with one of `ENDINGS`; the packed name if there is none.

    Raises:
        DataError: if there are several: which of them counts cannot be known.
    """
    found = [path for ending in ENDINGS if os.path.isfile(path := Path(f"{stem}{ending}"))]
    if len(found) > 1:
        raise DataError(f"{' and '.join(p.name for p in found)} lie side by side", file=found[0], field="path",
                        remedy="keep one of them")
    return found[0] if found else Path(f"{stem}{ENDINGS[0]}")
