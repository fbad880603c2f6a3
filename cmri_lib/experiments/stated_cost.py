"""What somebody says that their generator has cost. It is shown as stated: nothing of it can be measured from samples."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from cmri_lib.errors import DataError, ParameterError
from cmri_lib.measures.statistics.bootstrap import Score

#: Numbers that may be stated, under the names of the study's own tables: seconds, seconds, and how many.
NUMBERS = ("training_seconds", "seconds_per_image", "images_seen")
#: And on which machine, in words.
DEVICE = "device"


def read_cost(stated: Sequence[str]) -> dict[str, float | str]:
    """The cost that a command line states.

    Args:
        stated: pairs such as ``training_seconds=900``, and names of JSON files, which hold an object of such pairs.

    Returns:
        the stated ones of `NUMBERS`, and of `DEVICE`, in this order.

    Raises:
        ParameterError: on a pair, or DataError on a file, that cannot be read; on an unknown or repeated key, a number that is
            none or negative, or a device that is no text.
    """
    found: dict[str, float | str] = {}
    for key, value, file in _pairs(stated):
        where = {"file": file, "field": f"cost.{key}"}
        if key not in (*NUMBERS, DEVICE):
            raise ParameterError("unknown", **where, remedy=f"choose among {', '.join((*NUMBERS, DEVICE))}")
        if key in found:
            raise ParameterError("stated twice", **where, remedy="state it once")
        found[key] = _text(value, where) if key == DEVICE else _number(value, where)
    return {key: found[key] for key in (*NUMBERS, DEVICE) if key in found}


def cost_rows(cost: dict[str, float | str]) -> list[dict[str, object]]:
    """Rows of axis "cost" of the stated numbers, without intervals; n is 1."""
    return [Score(cost[key], math.nan, math.nan, n=1).row(key, "cost", "lower") for key in NUMBERS if key in cost]


def _pairs(stated: Sequence[str]) -> Iterator[tuple[str, object, Path | None]]:
    for one in stated:
        if one.endswith(".json"):
            yield from ((key, value, Path(one)) for key, value in _object(Path(one)).items())
        elif "=" in one:
            yield *one.split("=", 1), None
        else:
            raise ParameterError(f"{one!r} is neither", field="cost", remedy="give KEY=VALUE, or a file that ends in .json")


def _object(file: Path) -> dict[str, object]:
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise DataError(f"cannot be read ({cause})", file=file, field="cost", remedy="give a JSON file") from cause
    if not isinstance(read, dict):
        raise DataError(f"holds a {type(read).__name__}", file=file, field="cost", remedy='write {"training_seconds": 900}')
    return read


def _number(value: object, where: dict) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ParameterError(f"{value!r} is no such number", **where, remedy="give a finite number of at least 0")
    return number


def _text(value: object, where: dict) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ParameterError(f"{value!r} names no machine", **where, remedy='give words, such as "one NVIDIA H200"')
    return value.strip()
