"""The pipeline as ``dvc.yaml`` states it: which stage runs which notebook, and what it makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmri_lib.config.reading import read_yaml
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError, ParameterError

#: A stage with this command runs the notebook whose number follows.
RUNS_NOTEBOOK = "python -m cmri_lib.run "


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline.

    Attributes:
        name: in ``dvc.yaml``.
        notebook: the number of the notebook that it runs, as text; "" for none.
        outs: what it makes: paths from the root of the project, with ``${dataset}`` and ``${profile}`` in them.
    """

    name: str
    notebook: str
    outs: tuple[str, ...]

    def places(self, study: Study) -> tuple[Path, ...]:
        """What it makes, for the study's cohort and profile."""
        return tuple(study.root / out.replace("${dataset}", study.dataset).replace("${profile}", study.profile)
                     for out in self.outs)


def stages(root: Path) -> list[Stage]:
    """All stages, in the pipeline's order. Raises DataError if ``dvc.yaml`` is missing or no pipeline."""
    file = root / "dvc.yaml"
    return [_stage(file, name, entry if isinstance(entry, dict) else {}) for name, entry in _read(file).items()]


def notebook_of(study: Study, place: Path) -> str:
    """The number of the notebook whose stage makes what lies in `place`; "" if none does, or there is no pipeline."""
    try:
        found = stages(study.root)
    except DataError:
        return ""
    return next((one.notebook for one in found if any(map(place.is_relative_to, one.places(study)))), "")


def locked_stages(root: Path) -> list[Stage]:
    """The stages that have run, by ``dvc.lock``. Raises DataError if one of the two files is missing or no pipeline."""
    locked = _read(root / "dvc.lock")
    return [stage for stage in stages(root) if stage.name in locked]


def _read(file: Path) -> dict[str, Any]:
    """Name → entry of the stages in a file of DVC's."""
    try:
        found = read_yaml(file).get("stages")
    except ParameterError as cause:
        raise DataError(f"no pipeline ({cause.problem})", file=file,
                        remedy="run dvc repro first" if file.suffix == ".lock" else cause.remedy) from cause
    if not isinstance(found, dict):
        raise DataError(f"{found!r} in the place of stages", file=file, field="stages", remedy="give each stage its name")
    return found


def _stage(file: Path, name: str, entry: dict[str, Any]) -> Stage:
    command, outs = entry.get("cmd"), entry.get("outs", [])
    if not isinstance(command, str):
        raise DataError(f"{command!r}", file=file, field=f"stages.{name}.cmd", remedy="give one command")
    # An output is a path, or a path with options.
    paths = [next(iter(out), None) if isinstance(out, dict) else out for out in outs] if isinstance(outs, list) else [None]
    if not all(isinstance(path, str) for path in paths):
        raise DataError(f"{outs!r}", file=file, field=f"stages.{name}.outs", remedy="list paths, or paths with options")
    return Stage(name, command.removeprefix(RUNS_NOTEBOOK) if command.startswith(RUNS_NOTEBOOK) else "", tuple(paths))
