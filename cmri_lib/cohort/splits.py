"""Splits by patient: which patients train, choose the model, test it, and stay out for the audits of privacy.

A split is a table of patient and split. Lists for the phantom, ACDC and M&Ms are shipped in ``split_lists/``, so that
every reader of the study trains and tests on the same people; another data set gets one beside its files:

    python -m cmri_lib.cohort.splits --dataset NAME           # writes data/NAME/split.csv
    python -m cmri_lib.cohort.splits --dataset acdc --ship    # writes the shipped list anew
    python -m cmri_lib.cohort.splits --dataset NAME --shares 0.4 0.05 0.15 0.4    # more to hold out, for an audit
"""

from __future__ import annotations

import argparse
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cmri_lib.cohort.places import project_root
from cmri_lib.cohort.readers.cases import read_dataset
from cmri_lib.cohort.readers.layouts import ACDC_GROUPS
from cmri_lib.cohort.readers.tables import read_table
from cmri_lib.cohort.slices import SPLITS
from cmri_lib.errors import DataError, ParameterError, SplitError, command

SHIPPED = Path(__file__).with_name("split_lists")
SPLIT_FILE = "split.csv"
FRACTIONS = {"train": 0.6, "validation": 0.1, "test": 0.1, "holdout": 0.2}
#: Patients that splits have at least, the first row that a cohort can fill: three behind each interval (test, and
#: validation with hold-out), three on each side of the audit of near copies; then as much of it as there are patients for.
LEAST = ({"train": 3, "validation": 1, "test": 3, "holdout": 3}, {"train": 1, "validation": 1, "test": 3, "holdout": 2},
         {"train": 1, "test": 1})
STRATA = ("vendor", "disease")
#: A challenge's own parts → the splits its patients may go to. The audits' hold-out is taken from its training part.
OFFICIAL = {"training": ("train", "holdout"), "validation": ("validation",), "testing": ("test",)}
SEED = 0


def make_split(table: pd.DataFrame, fractions: Mapping[str, float] = FRACTIONS, seed: int = SEED,
               strata: Iterable[str] = STRATA) -> pd.DataFrame:
    """Divide the patients of `table` by `fractions`, evenly within every vendor, every disease and every pair of them.

    Patients are ordered by stratum and, within it, by a hash of seed and id, and dealt one by one to the split that
    lags most behind its share, the lags added over the whole, each single stratum and their combination (minimisation:
    Pocock and Simon, Biometrics 1975). The sizes are exact (largest remainder), and the result depends on neither the
    order of the rows nor a random generator. A patient with several scans counts once, in the stratum of the first.

    Args:
        table: columns patient and `strata`, a row per scan.
        fractions: split → share; they sum to 1.

    Returns:
        Columns patient and split, ordered by patient.

    Raises:
        ParameterError: if a split is unknown or the fractions do not sum to 1.
        DataError: if a column is missing.
    """
    _check_shares(fractions)
    strata = list(strata)
    if missing := [c for c in ("patient", *strata) if c not in table]:
        raise DataError(f"column {missing[0]!r} is missing", field=missing[0], remedy="give one row per scan with it")
    people = table.drop_duplicates("patient")
    people = people.assign(_hash=[_hash(seed, patient) for patient in people["patient"]])
    people = people.sort_values([*strata, "_hash"])
    values = list(people[strata].astype(str).itertuples(index=False, name=None))
    split = pd.DataFrame({"patient": people["patient"], "split": _deal(values, fractions)})
    return split.sort_values("patient", ignore_index=True)


def _check_shares(fractions: Mapping[str, float]) -> None:
    if foreign := [name for name in fractions if name not in SPLITS]:
        raise ParameterError(f"split {foreign[0]!r} is unknown", field="fractions", remedy=f"use {', '.join(SPLITS)}")
    if min(fractions.values()) < 0 or not np.isclose(sum(fractions.values()), 1):
        raise ParameterError(f"{dict(fractions)} are not shares of one", field="fractions", remedy="make them sum to 1")


def _filled(fractions: Mapping[str, float], patients: int) -> dict[str, float]:
    """`fractions`, or for a cohort of few patients shares that leave each split what intervals need (`LEAST`): the splits
    that would fall short take from those that have most to spare."""
    least = next((sizes for sizes in LEAST if sum(sizes.values()) <= patients), {})
    sizes = _totals(patients, list(fractions.values()))
    spare = np.array([size - least.get(name, 0) for name, size in zip(fractions, sizes)])
    if (spare >= 0).all() or set(fractions) != set(FRACTIONS):
        return dict(fractions)
    while (spare < 0).any():
        sizes[spare.argmin()] += 1
        sizes[spare.argmax()] -= 1
        spare[[spare.argmin(), spare.argmax()]] += 1, -1
    return {name: size / patients for name, size in zip(fractions, sizes)}


def _totals(patients: int, shares: Sequence[float]) -> np.ndarray:
    """Whole numbers that sum to `patients`, in proportion to `shares`, by largest remainder."""
    exact = patients * np.asarray(shares, float)
    totals = np.floor(exact + 1e-9).astype(int)
    totals[np.argsort(totals - exact, kind="stable")[:patients - totals.sum()]] += 1
    return totals


def _deal(values: list[tuple[str, ...]], fractions: Mapping[str, float]) -> list[str]:
    """A split for each patient, given as the tuple of its strata, by minimisation with exact totals."""
    names, shares = list(fractions), np.array(list(fractions.values()))
    totals = _totals(len(values), shares)
    dealt: dict[tuple, np.ndarray] = defaultdict(lambda: np.zeros(len(names), int))  # group → patients per split
    sequence = []
    for strata in values:
        groups = [("all",), *enumerate(strata), ("combined", *strata)]
        lag = sum(shares * (dealt[group].sum() + 1) - dealt[group] for group in groups)
        chosen = int(np.where(dealt["all",] < totals, lag, -np.inf).argmax())
        for group in groups:
            dealt[group][chosen] += 1
        sequence.append(names[chosen])
    return sequence


def _hash(seed: int, patient: str) -> str:
    return hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest()


def split_cohort(table: pd.DataFrame, seed: int = SEED, fractions: Mapping[str, float] = FRACTIONS) -> pd.DataFrame:
    """The split of a cohort (`Cohort.table`) under the study's two rules.

    A person scanned more than once goes to test: such pairs are the ground truth of vendor transfer. Where the
    challenge published a testing part, its parts are kept (`OFFICIAL`); other patients are split by `fractions`, few
    of them so that no split that the measures need stays empty (`LEAST`).

    Args:
        fractions: of every split, as for `make_split`.

    Returns:
        Columns patient, split and, where known, official.

    Raises:
        ParameterError: as `make_split`.
    """
    _check_shares(fractions)
    table = table.reset_index(drop=True)
    paired = table.groupby("patient")["scan"].transform("nunique") > 1
    published = "official" in table and (table["official"] == "testing").any()
    official = table["official"].fillna("") if published else pd.Series("", index=table.index)
    parts = []
    for part, rows in table.assign(_part=official.mask(paired, "paired")).groupby("_part", sort=True):
        splits = ("test",) if part == "paired" else OFFICIAL.get(part, SPLITS)
        if part == "training" and not (official == "validation").any():
            splits = (*splits, "validation")
        share = sum(fractions[name] for name in splits)
        shares = {name: fractions[name] / share for name in splits}
        parts.append(make_split(rows, _filled(shares, rows["patient"].nunique()), seed))
    split = pd.concat(parts).sort_values("patient", ignore_index=True)
    if published:
        split["official"] = split["patient"].map(dict(zip(table["patient"], official)))
    return split


def acdc_split(seed: int = SEED) -> pd.DataFrame:
    """ACDC: the training set 001–100 in equal parts of every group, its test set 101–150 as test.

    Of the first 16 patients of each group 8 train, 2 validate, 3 test and 3 are held out; of the last 4 it is 2, 0, 1
    and 1: so the 80-patient subset that holds the first 16 of each group is balanced too.
    """
    numbers = np.arange(1, 101)
    table = pd.DataFrame({"patient": [f"patient{n:03d}" for n in numbers],
                          "disease": np.repeat(ACDC_GROUPS, 20), "first": (numbers - 1) % 20 < 16})
    first = make_split(table[table["first"]], {"train": 8 / 16, "validation": 2 / 16, "test": 3 / 16,
                                               "holdout": 3 / 16}, seed, ["disease"])
    last = make_split(table[~table["first"]], {"train": 2 / 4, "test": 1 / 4, "holdout": 1 / 4}, seed, ["disease"])
    training = pd.concat([first, last]).sort_values("patient").assign(official="training")
    testing = pd.DataFrame({"patient": [f"patient{n}" for n in range(101, 151)], "split": "test",
                            "official": "testing"})
    return pd.concat([training, testing], ignore_index=True)


def mnms_split(seed: int = SEED) -> pd.DataFrame:
    """M&Ms: the challenge's parts are kept; a fifth of its 150 labelled training patients is held out.

    The ids and parts are those of the shipped list. Vendors are in the challenge's own table only, so the hold-out is
    drawn by hash alone, not by stratum.
    """
    table = load_split("mnms")[["patient", "official"]]
    parts = []
    for part, shares in (("training", {"train": 0.8, "holdout": 0.2}), ("validation", {"validation": 1.0}),
                         ("testing", {"test": 1.0})):
        rows = table[table["official"] == part]
        parts.append(make_split(rows, shares, seed, strata=[]).assign(official=part))
    return pd.concat(parts).sort_values("patient", ignore_index=True)


def load_split(dataset: str, folder: str | Path | None = None) -> pd.DataFrame:
    """The split of `dataset`: ``split.csv`` in its `folder` (``data/NAME``) if there is one, else the shipped list.

    Returns:
        Columns patient, split and possibly official; ``attrs["file"]`` names the list.

    Raises:
        SplitError: if there is no list, or it names a patient twice or an unknown split.
    """
    own = Path(folder or project_root() / "data" / dataset) / SPLIT_FILE
    file = own if own.is_file() else SHIPPED / f"{dataset}.csv"
    if not file.is_file():
        raise SplitError(f"no list of patients for {dataset!r}", file=own, field="split",
                         remedy=f"write one: python -m cmri_lib.cohort.splits --dataset {dataset}")
    return read_split(file)


def read_split(file: str | Path) -> pd.DataFrame:
    """Read and check one list of patients. Raises as `load_split`."""
    try:
        split = pd.DataFrame(read_table(Path(file), required=("patient", "split")))
    except DataError as error:
        raise SplitError(error.problem, file=file, field=error.field, remedy=error.remedy) from error
    repeated = split[split["patient"].duplicated(keep=False)]
    if len(repeated):
        patient = repeated["patient"].iloc[0]
        sides = repeated.loc[repeated["patient"] == patient, "split"].tolist()
        raise SplitError(f"patient {patient} is listed {len(sides)} times, in {sides}", file=file, field="patient",
                         remedy="list every patient exactly once")
    if foreign := sorted(set(split["split"]) - set(SPLITS)):
        raise SplitError(f"split {foreign[0]!r} is unknown", file=file, field="split",
                         remedy=f"use {', '.join(SPLITS)}")
    split.attrs["file"] = str(file)
    return split


def apply_split(patients: Iterable[str], split: pd.DataFrame) -> dict[str, str]:
    """{patient: split} of the given patients. A list may name people who are not in the cohort, not the reverse.

    Raises:
        SplitError: if a patient is not in the list.
    """
    listed, patients = dict(zip(split["patient"], split["split"])), sorted(set(patients))
    if unlisted := [patient for patient in patients if patient not in listed]:
        raise SplitError(f"{len(unlisted)} patients are in no split: {', '.join(unlisted[:10])}",
                         file=split.attrs.get("file"), field="patient",
                         remedy="add them to the list, or write a new one: python -m cmri_lib.cohort.splits")
    return {patient: listed[patient] for patient in patients}


def part_of_cohort(table: pd.DataFrame, split: Mapping[str, str], share: float) -> set[str]:
    """Patients of a smaller cohort: `share` of those of each split, vendor and disease, rounded up.

    Args:
        table: patient, vendor, disease, a row per scan. Those who were scanned by several vendors make one group, whatever
            their disease: they have many scans.
        split: patient → split.
    """
    people = table.groupby("patient").agg(vendor=("vendor", lambda v: "+".join(sorted(set(v)))),
                                          disease=("disease", "first")).sort_index()
    disease = people["disease"].mask(people["vendor"].str.contains("+", regex=False), "")
    groups = people.groupby([people.index.map(split), "vendor", disease], sort=True)
    return {name for _, group in groups for name in group.index[:math.ceil(share * len(group))]}


@command
def main(arguments: list[str] | None = None) -> int:
    """Command line: write a list of patients. An existing list is kept unless ``--overwrite`` or ``--ship``."""
    parser = argparse.ArgumentParser(prog="python -m cmri_lib.cohort.splits", description="Write a split by patient.")
    parser.add_argument("--dataset", required=True, help="name of the folder in data/")
    parser.add_argument("--data", type=Path, help="folder of the data sets; default: data/ of the project")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--shares", nargs=len(SPLITS), type=float, metavar=tuple(name.upper() for name in SPLITS),
                        help=f"of the patients; they sum to 1 ({' '.join(str(FRACTIONS[name]) for name in SPLITS)})")
    parser.add_argument("--ship", action="store_true", help="write the list that is shipped with the library")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing list")
    given = parser.parse_args(arguments)
    data = given.data or project_root() / "data"
    published = {"acdc": acdc_split, "mnms": mnms_split}
    if given.ship and given.dataset in published:
        if given.shares:
            raise ParameterError(f"the list that is shipped for {given.dataset} has shares of its own", field="--shares",
                                 remedy=f"leave out --ship, to write data/{given.dataset}/{SPLIT_FILE}")
        split = published[given.dataset](given.seed)
    else:
        shares = dict(zip(SPLITS, given.shares)) if given.shares else FRACTIONS
        split = split_cohort(read_dataset(data / given.dataset).table, given.seed, shares)
    file = SHIPPED / f"{given.dataset}.csv" if given.ship else data / given.dataset / SPLIT_FILE
    if file.exists() and not (given.ship or given.overwrite):
        raise SplitError("a list is already there", file=file, field="split", remedy="give --overwrite to replace it")
    split.to_csv(file, index=False)
    print(f"{file}\n{split['split'].value_counts().to_string()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
