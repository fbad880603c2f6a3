"""What a cohort lets the notebooks do, and why not more.

An experiment needs patients of certain splits, groups, vendors, phases or labels, and not every cohort has
them. `outlook` says for each experiment which of its parts a cohort allows and what the others lack.
``python -m cmri_lib.cohort.add`` prints it as a table when a cohort is added, and the notebooks ask the same
function for what they leave out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from cmri_lib.cohort.case import LABELS, PHASES, Case
from cmri_lib.cohort.preprocessing.pipeline import LEVELS, heights, level
from cmri_lib.cohort.slices import COVARIATES, Slices
from cmri_lib.cohort.vocabulary import names_nothing
from cmri_lib.errors import DataError

#: Patients behind an interval, at least, in each set that a bootstrap draws from (`bootstrap.MINIMUM`).
FEWEST = 3
#: Training patients, at least, that can be split into public and private ones (notebook 12).
FEWEST_SPLIT = 8
#: Moves of healthy hearts towards a disease in notebook 08, in the words of ACDC and M&Ms.
HEALTHY = "NOR"
MOVES = ((HEALTHY, "DCM"), (HEALTHY, "HCM"))
#: (disease, vendor) that C15 never sees, neither its autoencoder nor its prior: no other system's weights may
#: serve it.
WITHHELD_PAIRS = (("DCM", "Phantom B"), ("HCM", "Phantom C"), ("RV", "Phantom D"))


@dataclass(frozen=True)
class Contents:
    """What a cohort holds, as far as an experiment can depend on it.

    Attributes:
        scans: a row per scan: patient, scan, split, vendor, disease, `COVARIATES` (NaN where unknown).
        structures, phases, levels: those of `LABELS`, `PHASES` and `LEVELS` that occur.
        tissues: whether every tissue is labelled.
    """

    scans: pd.DataFrame
    structures: tuple[str, ...]
    phases: tuple[str, ...]
    levels: tuple[str, ...]
    tissues: bool

    @classmethod
    def of_cases(cls, cases: Sequence[Case], split: Mapping[str, str]) -> Contents:
        """Of scans as they are read; `split` is patient → split."""
        rows, labels, levels = [], set(), set()
        for case in cases:
            known = {name.lower(): value for name, value in case.covariates.items()}
            covariates = {c: pd.to_numeric(known.get(c), errors="coerce") for c in COVARIATES}
            rows.append({"patient": case.patient, "scan": case.scan, "split": split[case.patient],
                         "vendor": case.vendor, "disease": case.disease, **covariates})
            for volume in case.volumes.values():
                labels |= set(volume.mask[volume.mask > 0].tolist())
            levels |= {level(h) for of_phase in heights(case).values() for h in of_phase if h == h}
        phases = {phase for case in cases for phase in case.volumes}
        tissues = all(volume.tissues is not None for case in cases for volume in case.volumes.values())
        return cls(pd.DataFrame(rows), *_in_order(labels, phases, levels), tissues)

    @classmethod
    def of_slices(cls, slices: Slices) -> Contents:
        """Of preprocessed slices."""
        table = slices.table
        columns = ["patient", "scan", "split", "vendor", "disease", *(c for c in COVARIATES if c in table)]
        labels = {label for label in LABELS.values() if (slices.masks == label).any()}
        return cls(table[columns].drop_duplicates(["patient", "scan"]),
                   *_in_order(labels, set(table["phase"]), set(table["level"])), slices.tissues is not None)

    def patients(self, *splits: str, **words: str) -> int:
        """How many patients `splits` have, with these words in the table's columns."""
        rows = self.scans[self.scans["split"].isin(splits)]
        for column, word in words.items():
            rows = rows[rows[column] == word]
        return rows["patient"].nunique()

    def words(self, column: str, *splits: str, of_patients: int = 1) -> list[str]:
        """What at least `of_patients` patients of `splits` have in `column`; not what names nothing. Sorted."""
        found = self.scans[self.scans["split"].isin(splits)].groupby(column)["patient"].nunique()
        return [word for word in found.index[found >= of_patients] if not names_nothing(word)]


def _in_order(labels: Iterable[int], phases: Iterable[str], levels: Iterable[str]
              ) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    labels, phases, levels = set(labels), set(phases), set(levels)
    return (tuple(name for name, label in LABELS.items() if label in labels),
            tuple(p for p in PHASES if p in phases), tuple(x for x in LEVELS if x in levels))


@dataclass(frozen=True)
class Experiment:
    """What a cohort allows of one experiment.

    Attributes:
        notebooks: that run it.
        parts: part → what it lacks, empty where it is possible.
    """

    notebooks: str
    name: str
    parts: Mapping[str, str]

    @property
    def kept(self) -> list[str]:
        """The parts that are possible."""
        return [part for part, lack in self.parts.items() if not lack]

    @property
    def possible(self) -> str:
        """"yes", "partly" or "no"."""
        return "no" if not self.kept else "yes" if len(self.kept) == len(self.parts) else "partly"

    @property
    def why(self) -> str:
        """What the parts that are left out lack; parts that lack the same are named together."""
        lacks: dict[str, list[str]] = {}
        for part, lack in self.parts.items():
            if lack:
                lacks.setdefault(lack, []).append(part)
        if len(self.parts) == 1:
            return "".join(lacks)
        return "; ".join(f"{', '.join(parts)}: {lack}" for lack, parts in lacks.items())

    def __bool__(self) -> bool:
        return bool(self.kept)


class Outlook(Mapping[str, Experiment]):
    """Name of an experiment → what a cohort allows of it, in the order of the notebooks."""

    def __init__(self, experiments: Iterable[Experiment]):
        self._experiments = {experiment.name: experiment for experiment in experiments}

    def __getitem__(self, name: str) -> Experiment:
        return self._experiments[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._experiments)

    def __len__(self) -> int:
        return len(self._experiments)

    def table(self) -> pd.DataFrame:
        """Columns notebooks, experiment, possible, why."""
        return pd.DataFrame([(e.notebooks, e.name, e.possible, e.why) for e in self.values()],
                            columns=["notebooks", "experiment", "possible", "why"])

    def __str__(self) -> str:
        lines = ["What the notebooks can do with this cohort:", f"{'notebooks':11} {'possible':9} experiment"]
        for e in self.values():
            lines.append(f"{e.notebooks:11} {e.possible:9} {e.name}")
            lines += textwrap.wrap(e.why, 96, initial_indent=" " * 22, subsequent_indent=" " * 22)
        return "\n".join(lines)

    def left_out(self, notebook: str) -> str:
        """In words, a line each: what `notebook` leaves out with this cohort."""
        missing = [f"left out, {e.name}: {e.why}" for e in self.values()
                   if e.possible != "yes" and notebook in _numbers(e.notebooks)]
        lines = [textwrap.fill(line, 98, subsequent_indent="  ") for line in missing]
        return "\n".join(lines) or "nothing is left out"

    def need(self, *names: str, otherwise: type[DataError] = DataError) -> None:
        """Raise `otherwise` if one of these is impossible: DataError where nothing after it would work either,
        `NothingToDo` where only this notebook is left out."""
        for experiment in (self[name] for name in names):
            if not experiment:
                raise otherwise(f"{experiment.name}: {experiment.why}", field="split",
                                remedy="add patients, or move some to the split that lacks them (split.csv in the "
                                       "cohort's folder); notebook 01 runs with fewer")


def _numbers(notebooks: str) -> list[str]:
    """"02–05, 13" → 02, 03, 04, 05, 13."""
    found = []
    for part in notebooks.split(", "):
        first, _, last = part.partition("–")
        found += [f"{n:02d}" for n in range(int(first), int(last or first) + 1)]
    return found


# --- what each experiment needs
def outlook(cohort: Contents | Slices) -> Outlook:
    """What a cohort, given by its contents or as preprocessed slices, allows of every experiment."""
    contents = cohort if isinstance(cohort, Contents) else Contents.of_slices(cohort)
    return Outlook(Experiment(notebooks, name, parts) for notebooks, name, parts in _experiments(contents))


def _experiments(has: Contents) -> Iterator[tuple[str, str, dict[str, str]]]:
    interval = _few(has, "test"), _few(has, "validation", "holdout")
    yield "01–10, 17", "networks trained on this cohort", {"networks": _few(has, "train", least=1)}
    yield "01", "clinical measures", {
        "LV": _unlabelled(has, "LV"), "LV mass, wall": _unlabelled(has, "Myo"), "RV": _unlabelled(has, "RV")}
    vendors = has.words("vendor", "train", of_patients=4)
    yield "01", "vendor in the grey values", {
        "vendors": _fewer_than(2, vendors, "vendors with four training patients") or _unlabelled(has, "Myo")}
    yield "01", "segmenter on real test patients", {"interval": interval[0]}
    yield "02–05", "validation loss", {"loss": _few(has, "validation", least=1)}
    yield "02, 04, 05", "checks on unseen patients", {
        "checks": _few(has, "train", least=5) or _few(has, "validation", least=1)}
    yield "02–09", "distance to real patients", {"distance": interval[0] or interval[1]}
    yield "02–06, 15", "near-copy audit", {"audit": _few(has, "train") or _few(has, "holdout") or interval[0]}
    yield "02–06", "learning curve over patients", {"curve": _few(has, "train", least=5)}
    yield "06–08", "anatomy of samples", {
        name: "" if name in has.structures else "not labelled" for name in LABELS}
    yield "06", "levels of the heart (P3)", {"levels": _fewer_than(3, has.levels, "levels")}
    yield from _conditioning(has)
    yield from _masks(has)
    ill = [word for word in _common(has, "disease") if word != HEALTHY and not _few(has, "test", disease=word)]
    targeted = "" if ill else f"no disease named in training has {FEWEST} test patients"
    yield "09, 10, 17", "segmentation of test patients", {"arms": _few(has, "train", least=2) or interval[0]}
    yield "09", "samples of one disease (T5, T6)", {
        "masks of the disease": targeted,
        "masks moved to it": targeted or _few(has, "train", least=1, disease=HEALTHY) or _unlabelled(has, "LV")}
    yield "09", "heart function by Bland and Altman", {
        "LV EF": _no_ejection(has), "LV volumes": _unlabelled(has, "LV"), "LV mass": _unlabelled(has, "Myo"),
        "RV volumes": _unlabelled(has, "RV")}
    yield from _cross_vendor(has)
    # Two patients on either side of an attack, and of its null, which halves the hold-out.
    yield "11", "membership audit", {"audit": _few(has, "train", least=4) or _few(has, "holdout", least=4) or interval[0]}
    yield "12", "differential privacy by patient", {
        "private trainings": _few(has, "train", least=FEWEST_SPLIT) or interval[0],
        "attacks": _few(has, "train", least=FEWEST_SPLIT) or _few(has, "holdout", least=4)}
    yield "14", "translation between phases (F4)", {
        "pairs": _fewer_than(2, has.phases, "phases") or _few(has, "train", least=1) or interval[0]}
    wall = _unlabelled(has, "LV") or _unlabelled(has, "Myo")
    yield "15", "whole stacks of slices (C7)", {
        "stacks": wall or _fewer_than(2, has.levels, "levels") or _few(has, "train", least=1) or interval[0] or interval[1]}
    yield "13", "scoreboard", {"scores": interval[0] or interval[1]}


def _conditioning(has: Contents) -> Iterator[tuple[str, str, dict[str, str]]]:
    one = f"only the {has.structures[0]} is labelled" if len(has.structures) == 1 else ""
    yield "07", "content of the mask (M2)", {
        "LV cavity alone": _unlabelled(has, "LV") or one, "all labels": "",
        "every tissue": "" if has.tissues else "tissues around the heart are not labelled"}
    yield "07", "conditions that vary", {
        column: _fewer_than(2, has.words(column, "train"), f"{column}s named in training")
        for column in ("vendor", "disease")
    } | {"phase": _fewer_than(2, has.phases, "phases")}
    yield "07", "age and body mass index (C6)", {
        column: "" if has.scans[column].notna().any() else "not in the cohort's table"
        for column in COVARIATES if column in has.scans}
    yield "07", "phenotypes (C8)", {
        "LV EF": _no_ejection(has), "LV EDV": _unlabelled(has, "LV"), "RV EDV": _unlabelled(has, "RV")}
    yield "07", "condition accuracy", {
        **{column: _fewer_than(2, _common(has, column), f"{column}s named in training and in test")
           or _few(has, "test") for column in ("vendor", "disease")},
        "phase": _fewer_than(2, has.phases, "phases")}
    seen = has.scans[has.scans["split"] == "test"].groupby("patient")["vendor"].nunique() > 1
    yield "07, 14", "true scans of one heart", {
        "scans": "" if seen.sum() >= FEWEST else f"{seen.sum()} test patients were scanned by several vendors"}
    yield "07", "pairs of disease and vendor withheld (C15)", {
        "pairs": _fewer_than(2, withheld_pairs(has.scans), "pairs that are withheld elsewhere")}
    yield "07", "better labels or more data (M6)", {
        "worse labels": "", "fewer patients": _few(has, "train", least=2)}
    yield "07", "train on synthetic, test on real (TSTR)", {"students": _few(has, "test")}


def _cross_vendor(has: Contents) -> Iterator[tuple[str, str, dict[str, str]]]:
    seen, unseen = vendors_apart(has.scans)
    lack = "" if unseen else (f"no vendor beside {' and '.join(seen)} has {FEWEST} test patients" if seen
                              else "no vendor is named in training")
    known = [vendor for vendor in unseen if has.patients("train", vendor=vendor)]
    yield "10", "scanners never seen (T3)", {
        "vendors": lack, "as many patients of all vendors": lack or _fewer_than(
            1, known, "vendors met in the test alone have training patients")}
    yield "10", "samples in the style of an unseen vendor (T4)", {
        "samples": lack or _fewer_than(1, known, "vendors met in the test alone have training patients")}
    yield "10", "ED and ES, levels (P3)", {
        "phases": _fewer_than(2, has.phases, "phases"), "levels": _fewer_than(2, has.levels, "levels")}


def _masks(has: Contents) -> Iterator[tuple[str, str, dict[str, str]]]:
    unseen = ("validation", "test", "holdout")
    moves = {}
    for healthy, disease in MOVES:
        lacks = [f"{number} {name} in {where} ({least} needed)" for name, where, number, least in (
            (healthy, "train", has.patients("train", disease=healthy), 1),
            (disease, "train", has.patients("train", disease=disease), 1),
            (healthy, "the other splits", has.patients(*unseen, disease=healthy), FEWEST),
            (disease, "the other splits", has.patients(*unseen, disease=disease), 1)) if number < least]
        moves[f"{healthy} → {disease}"] = ", ".join(lacks) or _unlabelled(has, "LV")
    yield "08", "moves towards a disease (C4)", moves
    yield "08", "moved training hearts as masks (C4)", {
        move: lack and "no such move" or _few(has, "train", disease=move.split(" → ")[0])
        for move, lack in moves.items()}
    yield "08, 09, 17", "uniform ejection fractions (C5)", {"fractions": _no_ejection(has) or _few(has, "train")}
    walls = _unlabelled(has, "LV") or _unlabelled(has, "Myo")
    yield "08", "rules of a valid mask (C10)", {
        "connected structures": "", "closed wall": walls,
        "RV beside the wall": walls or _unlabelled(has, "RV")}


def vendors_apart(table: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(vendors to learn from, vendors that are met in the test alone): the two with most training patients, or all but one
    where there are but two; of the others those with `FEWEST` test patients. Patients who were scanned by several vendors
    are not learnt from.

    Args:
        table: patient, split, vendor; a row per scan or slice.
    """
    pairs = table[["patient", "split", "vendor"]].drop_duplicates()
    pairs = pairs[~pairs["vendor"].map(names_nothing)]
    learnt = pairs[pairs["split"] == "train"]
    counts = learnt[~learnt["patient"].duplicated(keep=False)]["vendor"].value_counts()
    order = sorted(counts.index, key=lambda vendor: (-counts[vendor], vendor))
    tested = pairs[pairs["split"] == "test"]["vendor"].value_counts()
    tested = {vendor for vendor in tested.index if tested[vendor] >= FEWEST}
    seen = tuple(sorted(order[:max(1, min(2, len({*order, *tested}) - 1))]))
    return seen, tuple(sorted(tested - set(seen))) if seen else ()


def withheld_pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Those of `WITHHELD_PAIRS` whose disease and vendor both occur in the columns of `table`."""
    diseases, vendors = set(table["disease"]), set(table["vendor"])
    return [pair for pair in WITHHELD_PAIRS if pair[0] in diseases and pair[1] in vendors]


# --- what is lacking, in words; empty where nothing is
def _few(has: Contents, *splits: str, least: int = FEWEST, **words: str) -> str:
    number = has.patients(*splits, **words)
    people = " ".join([*words.values(), "patient" if number == 1 else "patients"])
    return "" if number >= least else f"{number} {people} in {' and '.join(splits)}, at least {least} needed"


def _unlabelled(has: Contents, structure: str) -> str:
    return "" if structure in has.structures else f"{structure} is not labelled"


def _no_ejection(has: Contents) -> str:
    return _unlabelled(has, "LV") or _fewer_than(2, has.phases, "phases")


def _common(has: Contents, column: str) -> list[str]:
    return sorted(set(has.words(column, "train")) & set(has.words(column, "test")))


def _fewer_than(least: int, found: Sequence[object], what: str) -> str:
    """`what` is a plural whose first word ends in s."""
    noun, *rest = what.split(" ", 1)
    counted = " ".join([noun.removesuffix("s") if len(found) == 1 else noun, *rest])
    return "" if len(found) >= least else f"{len(found)} {counted}, at least {least} needed"
