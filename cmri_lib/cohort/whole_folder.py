"""A folder that appears complete or not at all: it is prepared beside its place and renamed at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cmri_lib.errors import DataError


def is_free(target: Path) -> bool:
    """Whether nothing lies there but an empty folder, so that no file is lost if another folder takes the place."""
    if target.is_dir() and not target.is_symlink():
        return not any(target.iterdir())
    return not (target.exists() or target.is_symlink())


@contextmanager
def whole_folder(target: Path, *, field: str, problem: str, remedy: str, replace: bool = False) -> Iterator[Path]:
    """``with whole_folder(target, …) as prepared:`` gives a new folder to fill, which becomes `target` when nothing failed;
    with `replace` in the place of what lay there.

    Raises:
        DataError: with `field`, `problem` and `remedy`, if the disk refuses.
    """
    prepared = earlier = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        prepared = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        yield prepared
        prepared.chmod(0o755)
        if replace and target.exists():
            earlier = target.rename(prepared.with_name(f"{prepared.name}-earlier"))
        prepared.rename(target)
    except OSError as error:
        raise DataError(f"{problem} ({error})", file=target, field=field, remedy=remedy) from error
    finally:
        for left in filter(None, (prepared, earlier)):
            shutil.rmtree(left, ignore_errors=True)
