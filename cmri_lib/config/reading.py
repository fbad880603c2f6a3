"""`params.yaml` as typed parameters: YAML read strictly, one profile chosen, every key, type and range checked by pydantic.

A value that differs between profiles is written ``{smoke: …, laptop: …}``; ``overnight: …`` may be added where it differs from
laptop's, and ``gpu: …`` where it differs from overnight's. What differs for one cohort stands once more below ``by_cohort``.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from cmri_lib.config.parameters import Parameters
from cmri_lib.errors import ParameterError

PROFILES = ("smoke", "laptop", "overnight", "gpu")
#: A profile that a value does not name takes that of the other.
LIKE = {"overnight": "laptop", "gpu": "overnight"}
#: Keys that choose a run; all others describe it.
CHOICES = ("profile", "dataset")
#: Section of what is chosen otherwise for a cohort: its name → the same keys as at the top.
BY_COHORT = "by_cohort"


class _StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # libyaml, where PyYAML was built with it: 6 times faster
    """YAML 1.1 takes the last of two equal keys in silence, reads 1e-4 as text and ``no`` as false. Here the first is an error,
    the second a number and the third a word, as in YAML 1.2: `dvc exp run -S` writes the file anew by its rules, unquoted."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(k, deep=deep) for k, _ in node.value]
        if repeated := {k for k in keys if keys.count(k) > 1}:
            raise yaml.YAMLError(f"key {sorted(repeated)} twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


_BOOLEAN = "tag:yaml.org,2002:bool"
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != _BOOLEAN]
    for first, found in _StrictLoader.yaml_implicit_resolvers.items()}
_StrictLoader.add_implicit_resolver(_BOOLEAN, re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"),
                                    list("-+0123456789"))


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file as a mapping. Raises ParameterError if it is absent, not a mapping, or repeats a key."""
    try:
        raw = yaml.load(file.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (OSError, yaml.YAMLError) as cause:
        raise ParameterError(f"cannot be read ({cause})", file=file, remedy="mend the YAML") from cause
    if not isinstance(raw, dict):
        raise ParameterError("is not a mapping of keys to values", file=file, field="top level", remedy="mend the YAML")
    return raw


def read_parameters(file: Path, profile: str | None = None, dataset: str | None = None) -> Parameters:
    """``params.yaml`` for one profile; arguments that are given override its `profile` and `dataset`.

    Raises:
        ParameterError: on any unknown, missing or mistyped key and any value out of range, wherever it stands, be it for
            another cohort.
    """
    raw = read_yaml(file)
    cohorts = raw.pop(BY_COHORT, {})
    raw |= {key: value for key, value in zip(CHOICES, (profile, dataset)) if value is not None}
    if raw.get("profile") not in PROFILES:
        raise ParameterError(f"{raw.get('profile')!r}", file=file, field="profile", remedy=f"choose among {PROFILES}")
    found = parse(choose_all(raw))
    if not isinstance(cohorts, dict) or not all(isinstance(changes, dict) for changes in cohorts.values()):
        raise ParameterError("is not a mapping of cohorts to what is chosen for them", file=file, field=BY_COHORT,
                             remedy="mend the section, or leave it out")
    for name, changes in cohorts.items():
        try:
            its_own = parse(choose_all(merged(raw | {"dataset": name}, changes)))
        except ParameterError as cause:
            raise ParameterError(cause.problem, file=file, field=f"{BY_COHORT}.{name}.{cause.field}",
                                 remedy=cause.remedy) from cause
        found = its_own if name == found.dataset else found
    return found


def choose_all(raw: dict[str, Any]) -> dict[str, Any]:
    """`choose_profile` of every section, for the profile that is chosen at the top."""
    return {key: choose_profile(value, raw["profile"], key) for key, value in raw.items()}


def merged(base: Any, changes: Any) -> Any:
    """`base`, with what `changes` has in its place: mappings key by key, all else whole."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {key: merged(base.get(key), value) for key, value in changes.items()}


def choose_profile(value: Any, profile: str, field: str) -> Any:
    """Replace every mapping of profiles by the value of `profile`. Raises ParameterError on an incomplete one."""
    if not isinstance(value, dict):
        return value
    if set(value) & set(PROFILES):
        needed = set(PROFILES) - set(LIKE)
        if not needed <= set(value) <= set(PROFILES):
            raise ParameterError(f"profiles {sorted(map(str, value))}", file="params.yaml", field=field,
                                 remedy=f"give a value for each of {sorted(needed)}, {sorted(LIKE)} if need be, and "
                                        "nothing else")
        while profile not in value:
            profile = LIKE[profile]
        return value[profile]
    return {k: choose_profile(v, profile, f"{field}.{k}") for k, v in value.items()}


def parse(values: dict[str, Any], kind: type = Parameters) -> Any:
    """The dataclass `kind` from nested mappings, strictly: no text for a number, no truth value for a count.

    Raises:
        ParameterError: naming the first key that is wrong; the others are listed after it.
    """
    try:
        # Through JSON, where pydantic's strict mode still takes a list for a tuple and a whole number for a float.
        return _adapter(kind).validate_json(json.dumps(_plain(values)))
    except ParameterError as cause:  # of a section's own check, which does not know where its values come from
        raise ParameterError(cause.problem, file=cause.file or "params.yaml", field=cause.field, remedy=cause.remedy) from cause
    except ValidationError as cause:
        faults = [f"{'.'.join(map(str, e['loc']))}: {_in_words(e)}" for e in cause.errors()]
        field, problem = faults[0].split(": ", 1)
        more = "" if len(faults) == 1 else f"; further: {'; '.join(faults[1:4])}"
        raise ParameterError(problem + more, file="params.yaml", field=field, remedy="mend the key or its value") from cause


@cache
def _adapter(kind: type) -> TypeAdapter:
    return TypeAdapter(kind)


def _plain(value: Any, field: str = "") -> Any:
    """The same for JSON. Raises ParameterError on what JSON has no type for, as a date, which YAML sees in 2024-01-01."""
    below = f"{field}." if field else ""
    if isinstance(value, dict):
        return {str(key): _plain(v, f"{below}{key}") for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{below}{k}") for k, v in enumerate(value)]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise ParameterError(f"{value} is a {type(value).__name__}", file="params.yaml", field=field,
                         remedy="put it into quotes if it is meant as text")


def _in_words(error: dict[str, Any]) -> str:
    """pydantic's message, with the value it is about."""
    plain = {"unexpected_keyword_argument": "unknown parameter", "missing": "is missing", "missing_argument": "is missing"}
    return plain.get(error["type"], f"{error['msg']}, not {error['input']!r}")
