"""Reading the small text files of a cohort: CSV tables and ACDC's ``Info.cfg``. Everything is text until asked for."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cmri_lib.cohort.readers.files import hidden
from cmri_lib.errors import DataError

_SEPARATORS = (",", ";", "\t")  # the first where there is none
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_STATES_NOTHING = ("", "n/a", "na", "nan", "none")


def find_table(folder: Path, *columns: str) -> Path:
    """The CSV at the top of `folder` whose header has all of `columns`; a lone CSV is taken unseen, so that reading it
    tells what it lacks. Lists of patients per split are passed over.

    Raises:
        DataError: if there is none, or more than one.
    """
    tables = [p for p in sorted(folder.glob("*.csv")) if p.is_file() and not hidden(p.name)
              and _header(p)[:2] != ["patient", "split"]]
    found = tables if len(tables) == 1 else [p for p in tables if set(columns) <= set(_header(p))]
    if len(found) == 1:
        return found[0]
    problem = f"{', '.join(p.name for p in found)} all have the columns" if found else "no CSV with these columns"
    raise DataError(problem, file=folder / "*.csv", field=", ".join(columns),
                    remedy="keep exactly one CSV with these columns at the top of the cohort's folder")


def read_table(file: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV as {column: text without surrounding blanks}; wholly empty rows and nameless columns dropped.
    Values may be separated by commas, semicolons or tabs.

    Raises:
        DataError: if the file is not a CSV in UTF-8, lacks a required column, has a column twice, no row, a row of
            another length, or an empty first required column.
    """
    header, *rows = _records(file) or [[]]
    if missing := [c for c in required if c not in header]:
        raise DataError(f"column {missing[0]!r} is missing, found {header}", file=file, field=missing[0],
                        remedy=f"give the columns {', '.join(required)}, separated by commas")
    refuse_repeats([c for c in header if c], file, "header")
    named = [bool(c) and not c.startswith("Unnamed:") for c in header]  # pandas' and Excel's index columns are not data
    table = []
    for number, row in enumerate(rows, start=2):
        if not any(row):
            continue
        if len(row) != len(header):
            raise DataError(f"record {number} has {len(row)} values, the header {len(header)}", file=file,
                            field=f"record {number}", remedy="quote values with commas; leave absent ones empty")
        table.append({column: value for column, value, keep in zip(header, row, named) if keep})
        if not table[-1][required[0]]:
            raise DataError(f"record {number} has no {required[0]}", file=file, field=required[0],
                            remedy="name the patient or scan in every row")
    if not table:
        raise DataError("no rows", file=file, field=required[0], remedy="list at least one scan")
    return table


def read_info(file: Path, required: Sequence[str]) -> dict[str, str]:
    """The ``Key: value`` lines of an ACDC ``Info.cfg``.

    Raises:
        DataError: if the file is absent, not text, or lacks a required key, or a line is not ``Key: value``.
    """
    info: dict[str, str] = {}
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        key, colon, value = (part.strip() for part in line.partition(":"))
        if not (key and colon and value) or key in info:
            raise DataError(f"line {number}, {line.strip()!r}, is not a new 'Key: value'", file=file,
                            field=key or f"line {number}", remedy="write one 'Key: value' per line, each key once")
        info[key] = value
    if missing := [key for key in required if key not in info]:
        raise DataError(f"{missing[0]} is missing", file=file, field=missing[0],
                        remedy=f"give {', '.join(required)} as 'Key: value' lines")
    return info


def frame_number(fields: dict[str, str], name: str, file: Path, first: int) -> int:
    """The frame number in ``fields[name]``; spreadsheets' "9.0" is read as 9.

    Raises:
        DataError: if it is not a whole number or lies before `first`.
    """
    number = _number(fields[name])
    if number is None or number != int(number) or number < first:
        raise DataError(f"frame {fields[name]!r} is not a whole number from {first}", file=file, field=name,
                        remedy=f"give the frame's number, counted from {first}")
    return int(number)


def covariates_of(fields: dict[str, str], leave_out: Sequence[str]) -> dict[str, Any]:
    """Further columns as {name: number or text}; what a table leaves empty or calls N/A is absent."""
    covariates: dict[str, Any] = {}
    for name, text in fields.items():
        if name in leave_out or text.lower() in _STATES_NOTHING:
            continue
        number = _number(text)
        covariates[name] = text if number is None else number
    return covariates


def refuse_repeats(names: Sequence[str], file: Path, field: str) -> None:
    """Raise DataError if a name is listed more than once."""
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(f"{repeated[:3]} listed more than once", file=file, field=field,
                        remedy="keep one entry of each; a person scanned twice needs two scan ids")


def _header(file: Path) -> list[str]:
    """Header of a CSV that may turn out not to be one."""
    try:
        records = _records(file)
    except DataError:
        return []
    return records[0] if records else []


def _records(file: Path) -> list[list[str]]:
    """The records of a table, separated by whichever of `_SEPARATORS` its first line has most of."""
    text = _text(file)
    separator = max(_SEPARATORS, key=text.partition("\n")[0].count)
    try:
        rows = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
        records = [[value.strip() for value in row] for row in rows]
    except csv.Error as error:
        raise DataError(f"not a CSV ({error})", file=file, field="content",
                        remedy="save the table as comma-separated text, quotes closed") from error
    if separator == ",":
        return records
    # Where commas do not separate, spreadsheets write them into numbers.
    return [[value.replace(",", ".") if _DECIMAL_COMMA.fullmatch(value) else value for value in row] for row in records]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=file, field="path",
                        remedy="complete the download or correct the folder") from error
    except UnicodeDecodeError as error:
        raise DataError("not text in UTF-8", file=file, field="content", remedy="save the file as UTF-8") from error


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
