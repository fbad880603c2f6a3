"""Where the project lies: every command and every cohort is looked for below it. It stands down here, so that a command that
only needs this does not load every network."""

from __future__ import annotations

from pathlib import Path

from cmri_lib.errors import ParameterError


def project_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` (default: the working directory) that holds ``params.yaml``. Raises
    ParameterError if there is none."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "params.yaml").exists():
            return folder
    raise ParameterError("no params.yaml here or above", file=start, remedy="run from inside the project")
