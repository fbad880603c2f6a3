"""Add a data set of your own to the study:

    python -m cmri_lib.cohort.add NAME PATH --layout LAYOUT [--link]

Every scan below PATH is read and checked first. Only then are the files copied (or linked) to ``data/NAME``, beside a
``cohort.yaml`` that names the layout and, unless the library ships one, a list of patients per split. What is already
there is never overwritten; a failed add leaves nothing half-done.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pandas as pd
import yaml

from cmri_lib.cohort.readers.cases import COHORT_FILE, Cohort, OnBadCase, layout_of, read_cohort
from cmri_lib.cohort.readers.layouts import LAYOUTS
from cmri_lib.cohort.requirements import Contents, outlook
from cmri_lib.cohort.splits import PROJECT, SHIPPED, SPLIT_FILE, apply_split, load_split, read_split, split_cohort
from cmri_lib.errors import DataError, ParameterError, StudyError


def add_dataset(name: str, source: str | Path, layout: str | None = None, *, link: bool = False,
                data: Path = PROJECT / "data", on_bad_case: OnBadCase = "stop") -> Cohort:
    """Check the scans of `source` and place them in ``data/name``; returns what was read.

    Args:
        layout: one of `LAYOUTS`; recognised from the files if None.
        link: link to the files in `source` instead of copying them; they must then stay where they are.
        on_bad_case: "skip" adds a cohort although some of its scans cannot be read.

    Raises:
        ParameterError: if the name is not a plain folder name or is taken.
        DataError: as `read_cohort`, or if `source` and ``data/name`` lie within each other or the disk refuses.
        SplitError: if the list of patients that belongs to the data set does not fit it.
    """
    source, target = Path(source).resolve(), data.resolve() / name
    _check_target(name, source, target)
    layout = layout or layout_of(source)
    cohort = read_cohort(source, layout, dataset=name, on_bad_case="skip")
    if on_bad_case == "stop":
        _refuse_bad(cohort, source)
    data.mkdir(parents=True, exist_ok=True)
    # Everything is prepared beside the target and renamed at the end: the folder appears complete or not at all.
    prepared = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=data))
    try:
        _place(source, prepared, link)
        _write(prepared / COHORT_FILE, yaml.safe_dump({"layout": layout}))
        _settle_split(name, cohort, prepared)
        prepared.chmod(0o755)
        prepared.rename(target)
    except OSError as error:
        raise DataError(f"cannot be written ({error})", file=target, field="path",
                        remedy="check free space and permissions, or use --link") from error
    finally:
        shutil.rmtree(prepared, ignore_errors=True)
    return cohort


def _check_target(name: str, source: Path, target: Path) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ParameterError(f"{name!r} is not a plain name", field="NAME", remedy="use letters, digits, - and _")
    if target.exists() or target.is_symlink():
        raise ParameterError(f"{name!r} is already there", file=target, field="NAME",
                             remedy="choose another name, or remove the folder yourself")
    if not source.is_dir():
        raise DataError("no such folder", file=source, field="PATH", remedy="give the folder that holds the scans")
    if target.is_relative_to(source):
        raise DataError(f"{target} lies inside it", file=source, field="PATH",
                        remedy="move the scans out of the study's data folder first")


def _refuse_bad(cohort: Cohort, source: Path) -> None:
    problems = cohort.report.loc[cohort.report["status"] == "bad", "problem"]
    if len(problems):
        raise DataError("\n- ".join([f"{len(problems)} of {len(cohort.report)} scans cannot be read:", *problems]),
                        file=source, field="scans", remedy="correct them, or add the others with --on-bad-case skip")


def _place(source: Path, prepared: Path, link: bool) -> None:
    """Copy or link every file of `source`, hidden ones and an earlier ``cohort.yaml`` aside."""
    put = os.symlink if link else shutil.copy2
    for entry in sorted(source.iterdir()):
        if entry.name.startswith(".") or entry.name == COHORT_FILE:
            continue
        if entry.is_dir():
            shutil.copytree(entry, prepared / entry.name, copy_function=put)
        else:
            put(entry, prepared / entry.name)


def _settle_split(name: str, cohort: Cohort, prepared: Path) -> None:
    """Keep the list of patients that came with the data or is shipped, if it names them all; else write one."""
    own, shipped = prepared / SPLIT_FILE, SHIPPED / f"{name}.csv"
    if own.exists() or shipped.exists():
        apply_split(cohort.table["patient"], read_split(own if own.exists() else shipped))
    else:
        _write(own, split_cohort(cohort.table).to_csv(index=False))


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns 0, or 1 if the data set was not added."""
    parser = argparse.ArgumentParser(prog="python -m cmri_lib.cohort.add", description="Add a data set to the study.")
    parser.add_argument("name", help="name of the new folder in data/")
    parser.add_argument("path", type=Path, help="folder that holds the scans")
    parser.add_argument("--layout", choices=LAYOUTS, help="how its files are laid out; recognised from the files by default")
    parser.add_argument("--link", action="store_true", help="link to the files instead of copying them")
    parser.add_argument("--on-bad-case", choices=("stop", "skip"), default="stop",
                        help="skip: add the cohort although some scans cannot be read")
    parser.add_argument("--data", type=Path, default=PROJECT / "data", help="folder of the data sets")
    given = parser.parse_args(arguments)
    try:
        cohort = add_dataset(given.name, given.path, given.layout, link=given.link, data=given.data,
                             on_bad_case=given.on_bad_case)
    except StudyError as error:
        print(f"{given.name} was not added.\n{error}", file=sys.stderr)
        return 1
    split = apply_split(cohort.table["patient"], load_split(given.name, given.data / given.name))
    print(_summary(cohort), outlook(Contents.of_cases(cohort.cases, split)), f"Now set `dataset: {given.name}` in params.yaml and run: dvc repro", sep="\n\n")
    return 0


def _summary(cohort: Cohort) -> str:
    status = ", ".join(f"{n} {status}" for status, n in cohort.report["status"].value_counts().items())
    problems = cohort.report.loc[cohort.report["status"] != "read", ["scan", "problem"]]
    groups = pd.crosstab(cohort.table["vendor"], cohort.table["disease"])
    return "\n\n".join([f"Scans: {status}", *(f"{r.scan}: {r.problem}" for r in problems.itertuples()),
                        groups.to_string()])


if __name__ == "__main__":
    sys.exit(main())
