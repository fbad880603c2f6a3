"""Add a data set of your own to the study:

    python -m cmri_lib.cohort.add NAME PATH --layout LAYOUT [--link]

Every scan below PATH is read and checked first. Only then are the files copied (or linked) to ``data/NAME``, beside a
``cohort.yaml`` that names the layout and, unless the library ships one, a list of patients per split. What is already
there is never overwritten; a failed add leaves nothing half-done. A scan that looks unlike a heart is refused, unless
the cohort's table names the check that found it under `accept` (`cmri_lib.cohort.plausibility`).
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import yaml

from cmri_lib.cohort.data_sets import PLAIN_NAME, is_virtual
from cmri_lib.cohort.places import project_root
from cmri_lib.cohort.readers.cases import COHORT_FILE, Cohort, OnBadCase, layout_of, read_cohort
from cmri_lib.cohort.readers.files import visible_files
from cmri_lib.cohort.readers.layouts import LAYOUTS
from cmri_lib.cohort.requirements import Contents, outlook
from cmri_lib.cohort.splits import SHIPPED, SPLIT_FILE, apply_split, load_split, read_split, split_cohort
from cmri_lib.cohort.whole_folder import whole_folder
from cmri_lib.errors import DataError, ParameterError, SplitError, StudyError


def add_dataset(name: str, source: str | Path, layout: str | None = None, *, link: bool = False,
                data: Path | None = None, on_bad_case: OnBadCase = "stop") -> Cohort:
    """Check the scans of `source` and place them in ``data/name``; returns what was read.

    Args:
        layout: one of `LAYOUTS`; recognised from the files if None.
        link: link to the files in `source` instead of copying them; they must then stay where they are.
        data: the folder of the data sets; that of the project if None.
        on_bad_case: "skip" adds a cohort although some of its scans cannot be read.

    Raises:
        ParameterError: if the name is not a plain folder name or is taken.
        DataError: as `read_cohort`, or if `source` and ``data/name`` lie within each other or the disk refuses.
        SplitError: if the list of patients that belongs to the data set does not fit it, or leaves nobody in train.
    """
    data = data or project_root() / "data"
    source, target = Path(source).resolve(), data.resolve() / name
    _check_target(name, source, target)
    layout = layout or layout_of(source)
    cohort = read_cohort(source, layout, dataset=name, on_bad_case="skip")
    if on_bad_case == "stop":
        _refuse_bad(cohort, source)
    split = _settled_split(name, cohort, source)
    with whole_folder(target, field="path", problem="cannot be copied",
                      remedy="check free space and permissions, or use --link") as prepared:
        _place(source, prepared, link)
        _write(prepared / COHORT_FILE, yaml.safe_dump({"layout": layout}))
        if split is not None:
            _write(prepared / SPLIT_FILE, split.to_csv(index=False))
    return cohort


def _check_target(name: str, source: Path, target: Path) -> None:
    if not re.fullmatch(PLAIN_NAME, name):
        raise ParameterError(f"{name!r} is not a plain name", field="NAME", remedy="use letters, digits, - and _")
    if is_virtual(name):
        raise ParameterError(f"{name!r} is a name of virtual patients", field="NAME",
                             remedy="choose one that does not begin with phantom: images of real patients are never published")
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
    """Copy or link every file below `source`, hidden ones and an earlier ``cohort.yaml`` aside. Linked folders are
    entered, and what is made is writable, whatever the source is: it must be possible to take it away again."""
    for file in visible_files(source):
        place = prepared / file.relative_to(source)
        if place == prepared / COHORT_FILE:
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if link:
            place.symlink_to(file)
        else:
            shutil.copyfile(file, place)


def _settled_split(name: str, cohort: Cohort, source: Path) -> pd.DataFrame | None:
    """A new list of patients per split, or None if the list that came with the data or is shipped serves.

    Raises:
        SplitError: if that list leaves a patient out, or nobody is left to learn from.
    """
    own, shipped = source / SPLIT_FILE, SHIPPED / f"{name}.csv"
    listed = next((file for file in (own, shipped) if file.is_file()), None)
    split = read_split(listed) if listed else split_cohort(cohort.table)
    part_of = apply_split(cohort.table["patient"], split)
    if "train" not in part_of.values():
        why = "" if listed else ": they are the challenge's testing part, or all were scanned more than once"
        raise SplitError(f"none of {len(part_of)} patients is in train, so nothing can be trained{why}",
                         file=listed or own, field="split",
                         remedy=f"write {SPLIT_FILE} (columns patient and split) beside the scans, with patients in train")
    return None if listed else split


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns 0, or 1 if the data set was not added."""
    parser = argparse.ArgumentParser(prog="python -m cmri_lib.cohort.add", description="Add a data set to the study.")
    parser.add_argument("name", help="name of the new folder in data/")
    parser.add_argument("path", type=Path, help="folder that holds the scans")
    parser.add_argument("--layout", choices=LAYOUTS,
                        help="how its files are laid out; recognised from the files by default. mnms needs the cines: "
                             "for copies with single frames of ED and ES write a table for folder")
    parser.add_argument("--link", action="store_true", help="link to the files instead of copying them")
    parser.add_argument("--on-bad-case", choices=("stop", "skip"), default="stop",
                        help="skip: add the cohort although some scans cannot be read")
    parser.add_argument("--data", type=Path, help="folder of the data sets; default: data/ of the project")
    given = parser.parse_args(arguments)
    try:
        data = given.data or project_root() / "data"
        cohort = add_dataset(given.name, given.path, given.layout, link=given.link, data=data,
                             on_bad_case=given.on_bad_case)
    except StudyError as error:
        print(f"{given.name} was not added.\n{error}", file=sys.stderr)
        return 1
    split = apply_split(cohort.table["patient"], load_split(given.name, data / given.name))
    print(_summary(cohort), outlook(Contents.of_cases(cohort.cases, split)),
          f"Now set `dataset: {given.name}` in params.yaml and run: dvc repro", sep="\n\n")
    return 0


def _summary(cohort: Cohort) -> str:
    status = ", ".join(f"{n} {status}" for status, n in cohort.report["status"].value_counts().items())
    problems = cohort.report.loc[cohort.report["status"] != "read", ["scan", "problem"]]
    accepted = cohort.report.loc[cohort.report["findings"] != "", ["scan", "findings"]]
    groups = pd.crosstab(cohort.table["vendor"], cohort.table["disease"])
    return "\n\n".join([f"Scans: {status}", *(f"{r.scan}: {r.problem}" for r in problems.itertuples()),
                        *(f"{r.scan}: accepted: {r.findings}" for r in accepted.itertuples()),
                        groups.to_string()])


if __name__ == "__main__":
    sys.exit(main())
