"""What a run has found, in words: ``results/FINDINGS.md``, written by notebook 13 from the template ``findings.md``.

People write the sentences, never their numbers: in the template each number is named by the table, the system and the metric
that it is taken from, and a sentence that compares also names the condition under which it is true (`provided`). A paragraph
whose condition does not hold, or whose numbers a run does not have, is left out, and the page says why.

The template is in Jinja. It has four functions that give `Rows`, ``scores("acdc/06_fidelity")``,
``figure("phantom/09/forest", by="arm")``, ``claims("phantom")`` and ``tests("phantom")``; one of the rows is
``rows["U6 DDPM", "heart_valid"]``.
It is formatted by a filter of `FORMATS`, with its 95 % interval by the same name and ``_ci``: ``{{ row | share_ci }}`` gives
".82 [.79, .86]".
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd

from cmri_lib.errors import DataError
from cmri_lib.reporting import review

TEMPLATE = Path(__file__).with_suffix(".md")
LEFT_OUT = "*Left out here: "
WIDTH = 128


def _signed(text: str) -> str:
    """With a minus, and a zero that has no sign."""
    return re.sub(r"^[-+](?=[0.]*$)", "", text).replace("-", "−")


def _without_zero(text: str) -> str:
    """A number below 1 begins with its point."""
    return re.sub(r"\b0\.", ".", text)


#: Name of a filter → a number as it is printed.
FORMATS: dict[str, Callable[[float], str]] = {
    "share": lambda value: _signed(_without_zero(f"{value:.2f}")),
    "small": lambda value: _signed(_without_zero(f"{value:.4f}")),
    "points": lambda value: _signed(f"{100 * value:+.1f}"),  # of the Dice: hundredths
    "one": lambda value: _signed(f"{value:.1f}"),
    "mm": lambda value: _signed(f"{value:+.1f}"),
}


class _LeftOut(Exception):
    """This paragraph cannot be written."""


@dataclass(frozen=True)
class Row:
    """One row of a table: a score, with its 95 % interval, floor and ceiling if it has them; of a claim its verdict, alone and
    after Holm's correction."""

    value: float
    low: float = math.nan
    high: float = math.nan
    verdict: str = ""
    after_holm: str = ""
    floor: float = math.nan
    ceiling: float = math.nan


@dataclass(frozen=True)
class Rows:
    """Rows of one table.

    Attributes:
        by: column, or columns, whose values name a row.
        file: what messages call the table.
    """

    table: pd.DataFrame
    by: str | Sequence[str]
    file: str

    @property
    def names(self) -> list[str]:
        """`by`, as a list."""
        return [self.by] if isinstance(self.by, str) else list(self.by)

    def __getitem__(self, key: str | tuple) -> Row:
        """The row of this name. Raises _LeftOut unless there is exactly one."""
        named = dict(zip(self.names, key if isinstance(key, tuple) else (key,), strict=True))
        found = _matching(self.table, named)
        found = found.drop_duplicates([name for name in ("value", "low", "high") if name in found])
        if len(found) != 1:
            raise _LeftOut(f"{self.file} has {len(found)} rows of {', '.join(map(str, named.values()))}")
        return _row(found.iloc[0])

    def among(self, **where: object) -> Rows:
        """The rows with these values, or one of these values, in columns."""
        return Rows(_matching(self.table, where), self.by, self.file)

    def like(self, column: str, pattern: str) -> Rows:
        """The rows whose value in a column begins as a regular expression says."""
        return Rows(self.table[self.table[column].str.match(pattern)], self.by, self.file)

    def above(self, limit: float) -> list[str]:
        """The first names of the rows whose whole interval lies above a limit."""
        return self.table.loc[self.table["low"] > limit, self.names[0]].tolist()

    def below(self, limit: float) -> list[str]:
        """The first names of the rows whose whole interval lies below a limit."""
        return self.table.loc[self.table["high"] < limit, self.names[0]].tolist()

    def above_floor(self) -> list[str]:
        """The first names of the rows whose whole interval lies above their floor."""
        return self.table.loc[self.table["low"] > self.table["floor"], self.names[0]].tolist()

    def all_above(self, limit: float) -> bool:
        """Whether there are rows, and the whole interval of each lies above a limit."""
        return len(self.table) > 0 and bool((self.table["low"] > limit).all())

    def all_below(self, limit: float) -> bool:
        """Whether there are rows, and the whole interval of each lies below a limit."""
        return len(self.table) > 0 and bool((self.table["high"] < limit).all())

    def all_hold(self, number: float) -> bool:
        """Whether there are rows, and the interval of each holds a number."""
        return len(self.table) > 0 and bool(((self.table["low"] <= number) & (self.table["high"] >= number)).all())

    def order(self) -> list[str]:
        """The first names of the rows, from the lowest value to the highest."""
        return self._sorted()[self.names[0]].tolist()

    def lowest(self) -> str:
        """The first name of the row with the lowest value."""
        return self.order()[0]

    def highest(self) -> str:
        """The first name of the row with the highest value."""
        return self.order()[-1]

    def best(self) -> Row:
        """The row with the highest value."""
        return _row(self._sorted().iloc[-1])

    def worst(self) -> Row:
        """The row with the lowest value."""
        return _row(self._sorted().iloc[0])

    def __len__(self) -> int:
        return len(self.table)

    def number(self, column: str) -> int:
        """How many different values a column has."""
        return self.table[column].nunique()

    def _sorted(self) -> pd.DataFrame:
        if self.table.empty:
            raise _LeftOut(f"{self.file} has no such rows")
        return self.table.sort_values("value", kind="stable")


class Claims(Rows):
    """Tests of one cohort, by claim; the value is the effect."""

    def verdict(self, claim: str) -> str:
        """The verdict that stands together with all others, after Holm's correction; a dot for a claim that is not tested."""
        return self._of(claim, "after_holm") or "·"

    def tested(self, claim: str) -> str:
        """What the test compares, in words; nothing for a claim that is not tested."""
        return review.compared(self._of(claim, "test"))

    def _of(self, claim: str, column: str) -> str:
        return next(iter(self.table.loc[self.table["claim"] == claim, column]), "")


def _row(found: pd.Series) -> Row:
    return Row(**{name: found[name] for name in Row.__dataclass_fields__ if name in found})


def page(root: Path, profile: str, template: str | None = None) -> str:
    """The findings in Markdown: each paragraph of the template, or a line that says why it is left out.

    Args:
        root: of the project, with ``results/`` and ``figures/``.
        profile: rows of others are not used.
        template: by default `TEMPLATE`.
    """
    paragraphs = re.split(r"\n{2,}", (template or TEMPLATE.read_text(encoding="utf-8")).strip())
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False)
    environment.filters |= _filters()
    environment.globals |= _Source(root, profile).functions() | {"profile": profile, "statements": review.CLAIMS}
    return "\n\n".join(_paragraph(environment, text) for text in paragraphs) + "\n"


def left_out(text: str) -> list[str]:
    """Why paragraphs of the page were left out."""
    reasons = re.findall(rf"^{re.escape(LEFT_OUT)}(.*?)\.\*$", text, re.MULTILINE | re.DOTALL)
    return [" ".join(reason.split()) for reason in reasons]  # in one line each


def _paragraph(environment: jinja2.Environment, text: str) -> str:
    try:
        written = environment.from_string(text).render().strip()
    except _LeftOut as reason:
        written = f"{LEFT_OUT}{reason}.*"
    if written.startswith(("|", "#")):
        return written  # a table or a heading is no paragraph
    inner = "  " if written.startswith("- ") else ""
    return textwrap.fill(written, WIDTH, break_long_words=False, break_on_hyphens=False, subsequent_indent=inner)


def _provided(condition: bool, statement: str) -> str:
    """Nothing, where the statement is true."""
    if not condition:
        raise _LeftOut(f"these results do not show that {statement}")
    return ""


def _filters() -> dict[str, Callable[[Row | float], str]]:
    def plain(shown: Callable[[float], str]) -> Callable[[Row | float], str]:
        return lambda row: shown(row.value if isinstance(row, Row) else row)

    def with_interval(shown: Callable[[float], str]) -> Callable[[Row], str]:
        return lambda row: f"{shown(row.value)} [{shown(row.low)}, {shown(row.high)}]"

    return ({name: plain(shown) for name, shown in FORMATS.items()}
            | {f"{name}_ci": with_interval(shown) for name, shown in FORMATS.items()})


@dataclass(frozen=True)
class _Source:
    """Where numbers come from: tables of one profile."""

    root: Path
    profile: str

    def functions(self) -> dict[str, Callable]:
        return {"scores": self.scores, "figure": self.figure, "claims": self.claims, "tests": self.tests,
                "provided": _provided}

    def scores(self, place: str, by: str | Sequence[str] = ("system", "metric"), **where: object) -> Rows:
        """Rows of ``results/<place>.csv``."""
        table = self._read(f"results/{place}.csv")
        return Rows(_matching(table[table["profile"] == self.profile], where), by, f"results/{place}.csv")

    def figure(self, place: str, by: str | Sequence[str], value: str = "value", **where: object) -> Rows:
        """Rows behind the figure ``figures/<place>``. Not all say of which profile they are, but their notebook's scores do.

        Args:
            value: the column that is quoted, if it is called otherwise.
        """
        dataset, number, _ = place.split("/")
        tables = sorted((self.root / "results" / dataset).glob(f"{number}_*.csv"))
        if not any(self.profile in set(pd.read_csv(file).get("profile", ())) for file in tables):
            raise _LeftOut(f"notebook {number} has not been run on {dataset} in the profile {self.profile}")
        table = self._read(f"figures/{place}.csv")
        if value not in table:
            raise _LeftOut(f"figures/{place}.csv has no column {value!r}")
        return Rows(_matching(table.assign(value=table[value]), where), by, f"figures/{place}.csv")

    def claims(self, dataset: str) -> Claims:
        """The primary tests of a cohort."""
        return self.tests(dataset, primary=True)

    def tests(self, dataset: str, **where: object) -> Claims:
        """All tests of a cohort, the exploratory ones too."""
        table = self._read("results/claims.csv").rename(columns={"effect": "value", "after Holm": "after_holm"})
        mine = _matching(table, {"dataset": dataset, "profile": self.profile, **where})
        return Claims(mine, "claim", f"results/claims.csv, {dataset}")

    def _read(self, name: str) -> pd.DataFrame:
        if not (file := self.root / name).is_file():
            raise _LeftOut(f"{name} is not there")
        try:
            return pd.read_csv(file, dtype={"system": str})
        except pd.errors.EmptyDataError:
            raise _LeftOut(f"{name} is empty") from None


def _matching(table: pd.DataFrame, where: dict[str, object]) -> pd.DataFrame:
    """The rows that have these values, or one of a list of them. Raises DataError on an unknown column."""
    for column, wanted in where.items():
        if column not in table:
            raise DataError(f"no column {column!r}", file=TEMPLATE, field=column, remedy=f"use {', '.join(table)}")
        table = table[table[column].isin(wanted if isinstance(wanted, (list, tuple)) else [wanted])]
    return table
