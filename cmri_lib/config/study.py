"""The study's parameters and places: what `params.yaml` says for one profile and one cohort, and where things lie.

Notebooks begin with ``study = Study.open(profile, dataset)`` and read every number from it. `params.yaml` is the only
place for numbers a reader may want to change; a value that differs between profiles is written
``{smoke: …, laptop: …, gpu: …}``. Unknown, missing or mistyped keys are refused.
"""

from __future__ import annotations

import os
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml

from cmri_lib.errors import ParameterError

PROFILES = ("smoke", "laptop", "gpu")
T = TypeVar("T")


def project_root(start: Path | None = None) -> Path:
    """The nearest folder at or above `start` (default: the working directory) that holds ``params.yaml``."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "params.yaml").exists():
            return folder
    raise ParameterError("no params.yaml here or above", file=start, remedy="run from inside the project")


@dataclass(frozen=True)
class Study:
    """One run of the study: `dataset` under `profile`, with the values that hold for it."""

    root: Path
    profile: str
    dataset: str
    seed: int
    values: dict[str, Any]

    @classmethod
    def open(cls, profile: str | None = None, dataset: str | None = None, root: Path | None = None) -> Study:
        """Read ``params.yaml``; arguments that are given override it."""
        root = root or project_root()
        raw = read_params(root / "params.yaml")
        profile = profile or raw.pop("profile")
        dataset = dataset or raw.pop("dataset")
        if profile not in PROFILES:
            raise ParameterError(f"{profile!r}", file=root / "params.yaml", field="profile", remedy=f"choose {PROFILES}")
        values = {k: resolve(v, profile, k) for k, v in raw.items() if k not in ("profile", "dataset")}
        if values.pop("device", "auto") == "cpu":
            os.environ["ACCELERATE_USE_CPU"] = "true"  # read by Accelerate when it first looks for a device
        return cls(root, profile, dataset, values.pop("seed"), values)

    def settings(self, section: str, kind: type[T], **more: Any) -> T:
        """Section `section` (dots descend) as the dataclass `kind`; `more` adds or overrides fields.

        Raises:
            ParameterError: on an unknown key, a missing one, or a value of another type than the field's.
        """
        value: Any = self.values
        for key in section.split("."):
            if not isinstance(value, dict) or key not in value:
                raise ParameterError("no such section", file="params.yaml", field=section, remedy="add it, or mend its name")
            value = value[key]
        return build(kind, {**value, **more}, section)

    @property
    def data(self) -> Path:
        """The raw cohort."""
        return self.root / "data" / self.dataset

    def work(self, name: str) -> Path:
        """Where intermediate results of this run go: preprocessed slices, trained weights, sample banks."""
        return self.root / "work" / self.dataset / self.profile / name

    @property
    def results(self) -> Path:
        return self.root / "results" / self.dataset

    @property
    def figures(self) -> Path:
        return self.root / "figures" / self.dataset


def read_params(file: Path) -> dict[str, Any]:
    """``params.yaml`` as a mapping. Raises ParameterError if it is absent, not YAML, or repeats a key."""
    try:
        raw = yaml.load(file.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (OSError, yaml.YAMLError) as cause:
        raise ParameterError(f"cannot be read ({cause})", file=file, remedy="mend the YAML") from cause
    missing = {"profile", "dataset", "seed"} - set(raw or {})
    if missing:
        raise ParameterError(f"{sorted(missing)} are missing", file=file, field="top level", remedy="add them")
    return raw


class _UniqueKeys(yaml.SafeLoader):
    """YAML takes the last of two equal keys in silence; here the second is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(k, deep=deep) for k, _ in node.value]
        repeated = {k for k in keys if keys.count(k) > 1}
        if repeated:
            raise yaml.YAMLError(f"key {sorted(repeated)} twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def resolve(value: Any, profile: str, field: str) -> Any:
    """Replace every mapping of profiles by the value of `profile`."""
    if not isinstance(value, dict):
        return value
    if set(value) & set(PROFILES):
        if set(value) != set(PROFILES):
            raise ParameterError(f"profiles {sorted(map(str, value))}", file="params.yaml", field=field,
                                 remedy=f"give a value for each of {PROFILES} and nothing else")
        return value[profile]
    return {k: resolve(v, profile, f"{field}.{k}") for k, v in value.items()}


def build(kind: type[T], values: dict[str, Any], section: str) -> T:
    """The dataclass `kind` from a mapping, every key known, none missing, every value of the field's type."""
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    if unknown := sorted(set(values) - set(known)):
        raise ParameterError(f"unknown parameter {unknown}", file="params.yaml", field=section,
                             remedy=f"known are {sorted(known)}")
    absent = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING and n not in values]
    if absent:
        raise ParameterError(f"parameters {absent} are missing", file="params.yaml", field=section, remedy="add them")
    return kind(**{k: _typed(v, hints[k], f"{section}.{k}") for k, v in values.items()})


def _typed(value: Any, hint: Any, field: str) -> Any:
    """`value` if it is of type `hint` (an int passes for a float, a list for a tuple), else ParameterError."""
    options = get_args(hint) if get_origin(hint) not in (tuple, None) else (hint,)
    for option in options:
        origin = get_origin(option) or option
        if is_dataclass(option) and isinstance(value, dict):
            return build(option, value, field)
        if origin is tuple and isinstance(value, (list, tuple)):
            kinds = [k for k in get_args(option) if k is not Ellipsis]
            return tuple(_typed(v, kinds[min(i, len(kinds) - 1)], f"{field}[{i}]") if kinds else v
                         for i, v in enumerate(value))
        if origin is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(option, type) and isinstance(value, option) and not (option is int and isinstance(value, bool)):
            return value
        if not isinstance(origin, type) and value == option:  # Literal values
            return value
    raise ParameterError(f"{value!r} is a {type(value).__name__}, not {getattr(hint, '__name__', hint)}",
                         file="params.yaml", field=field, remedy="mend the value (YAML reads 1e-4 as text: write 1.0e-4)")

