"""The results as a page to read: ``results/README.md``, written by notebook 13 from the tidy tables alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from cmri_lib.reporting import metrics, review

#: Metrics whose interval stands in the tables of the page; those of the others are in the scoreboard.
WITH_INTERVAL = ("mmd_anatomy", "mmd_classical", "dice_mean")
NOTHING, ESCAPED = "·", "\\|"

HEAD = """# Results

Written by notebook 13; profile `{profile}`. Brackets: 95 % bootstrap over patients, and over trainings of a
system that has several (column `seeds`): few trainings that differ widely have wide ones. An interval ends where
the scale does. ↓ lower is better, ↑ higher, →0 nearer to 0. Every row, with n, interval, floor and ceiling:
[scores.csv](scores.csv); the ledger of claims: [claims.csv](claims.csv).

- *Real images*: other patients' real slices in the place of samples, what distances are read against; their
  brackets are 95 % of random splits. Real slices come from few patients, and samples can have a smaller Fréchet
  distance than they. For Dice, HD95 and condition accuracy: what the same instrument reads in real slices;
  samples above them are exaggerated, not better.
- *Anatomy*, *appearance (MMD)*: the headline, bounded kernel distances in the features of the frozen segmenter
  and in training-free Gabor features; a system must do well in both.
- *KID*, *Fréchet*: distances in the features of the study's own network, for comparison with other papers. The
  Fréchet distance falls with the number of samples: compare systems of equal n.
- *MS-SSIM of pairs*: likeness of two samples; lower is more diverse, and below real images is no merit.
- *Top-octave power*: log10 against real; below 0 is blur.
- *C2ST accuracy, images*: of a small network that separates samples from real slices; ½: it cannot.
- *LV area, W1*: distance of the distributions of LV areas. *No LV*: share of samples without one.
- *Valid hearts*: share with one cavity in a closed wall and the RV beside it, as the frozen segmenter sees
  them. *(no hearts)*: a system with less than half as many as real images; nothing else of it counts. Where the
  segmenter finds fewer than half of the real hearts, nobody can be judged, and a note says so.
- *Dice with the mask*, *HD95*: what the frozen segmenter sees in the samples against the mask asked for.
- *Vendor accuracy*, *phase accuracy*: balanced accuracy of a frozen classifier for the condition asked for.
- *Nearest to training*: share of samples nearer to a training patient than to one held out; without memory
  that of real images, 1 for copies; *− real*: above theirs. *Near copies*: share nearer to training than 95 %
  of real test slices are.
- *Supported*: the whole interval of a claim's test lies on the claimed side of a margin that was fixed
  beforehand; *not supported*: on the other; *undecided*: neither. A claim of several parts needs all of them, and
  fails with any one. *Not testable at this budget*: a system that is compared shows no hearts, or has not converged.
- *Primary test*: the one of a claim that was stated before the results. *After Holm*: the verdicts that stand
  together, with a chance of 5 % that any of them is wrong: by the choice of patients, for most systems are one
  training, and another one may differ by more.
"""


def page(scores: pd.DataFrame, claims: pd.DataFrame, profile: str) -> str:
    """Markdown: for each cohort the unconditional and the conditional systems of the review, nearest first, their
    headline metrics in as many tables as the scoreboard has panels; then the claims.

    Args:
        scores, claims: `results.union` of both kinds; rows of other profiles are left out.
    """
    scores, claims = scores[scores["profile"] == profile], claims[claims["profile"] == profile]
    parts = [HEAD.format(profile=profile)]
    for kind in ("Unconditional systems", "Conditional systems"):
        for dataset, mine in scores.groupby("dataset", sort=False):
            measured = _of_kind(mine, kind)
            panels = metrics.panels(metrics.headline(measured["metric"]))
            if not panels:
                continue  # a cohort of which nothing but an audit, say, has been run
            parts.append("\n\n".join(filter(None, (f"## {kind}: {dataset}", review.hearts_note(measured)))) + "\n")
            for names in panels:
                axes = dict.fromkeys(metrics.describe(name).axis for name in names)
                table = markdown(systems(mine, kind, names))
                parts.append(f"### {', '.join(axes).capitalize()}\n\n{table}\n")
    explored = claims[~claims["primary"].astype(bool)]
    return "\n".join([*parts, f"## Claims of the review: primary tests\n\n{markdown(primary_tests(claims))}\n",
                      f"## Claims of the review: exploratory tests\n\n{markdown(tests(explored))}\n"])


def _of_kind(scores: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The rows of the systems of one kind."""
    return scores[review.listed(scores["system"]) & (review.unconditional(scores) == (kind == "Unconditional systems"))]


def systems(scores: pd.DataFrame, kind: str, names: Sequence[str]) -> pd.DataFrame:
    """One row per system of one kind, real images first, then by the first of the headline metrics; a column per metric.

    Args:
        scores: of one cohort and profile. kind: "Unconditional systems" or "Conditional systems".
    """
    mine = _of_kind(scores, kind).drop_duplicates(["system", "metric"])
    first_of = next(iter(metrics.headline(mine["metric"])), "")
    lead = mine[mine["metric"] == first_of].set_index("system")["value"]
    heartless = review.without_hearts(mine)
    shown = mine[mine["metric"].isin(names)]
    order = sorted(dict.fromkeys(shown["system"]), key=lambda name: lead.get(name, float("inf")))
    cells = {(row.system, row.metric): _score(row) for row in shown.itertuples()}
    better = shown.drop_duplicates("metric").set_index("metric")["better"]
    columns = {name: f"{metrics.short(name)} {metrics.arrow(name, better[name])}" for name in names}
    first = {"system": f"*{review.system('real')}*"}
    table = [first | {columns[name]: _real(scores, mine, name) for name in names}]
    if kind == "Conditional systems":
        table[0] = first | {"condition": NOTHING} | table[0]
    conditioned_on = mine.drop_duplicates("system").set_index("system")["conditioning"]
    for name in order:
        row = {"system": f"{name} (no hearts)" if name in heartless else name}
        if kind == "Conditional systems":
            row["condition"] = review.system(conditioned_on[name])
        table.append(row | {columns[metric]: cells.get((name, metric), NOTHING) for metric in names})
    return pd.DataFrame(table)


def _real(scores: pd.DataFrame, mine: pd.DataFrame, name: str) -> str:
    """What real images score: their own row, or the mean of the references of the systems."""
    own = scores[(scores["system"] == "real") & (scores["metric"] == name)]
    if len(own):
        return _score(next(own.itertuples()))
    found = metrics.references(mine[mine["metric"] == name], name)
    return next((metrics.number(name, value) for value, kind, _ in found if kind == "real"), NOTHING)


def _score(row: tuple) -> str:
    return metrics.with_interval(row) if row.metric in WITH_INTERVAL else metrics.number(row.metric, row.value)


def primary_tests(claims: pd.DataFrame) -> pd.DataFrame:
    """One row per primary test and cohort, in the order of the review's claims.

    Args:
        claims: of one profile, with the column `after Holm` (`claims.after_holm`).
    """
    order = {claim: place for place, claim in enumerate(review.CLAIMS)}
    mine = claims[claims["primary"].astype(bool)].sort_values("claim", key=lambda c: c.map(order), kind="stable")
    return pd.DataFrame({
        "claim": [f"{row.claim}: {review.CLAIMS[row.claim]}" for row in mine.itertuples()], "cohort": mine["dataset"],
        "test": mine["test"].map(review.compared),
        "effect of the weakest criterion": [effect(row) for row in mine.itertuples()],
        "unit": mine["unit"], "p": mine["p"].map(probability),
        "verdict": mine["verdict"], "after Holm": mine["after Holm"]})


def tests(claims: pd.DataFrame) -> pd.DataFrame:
    """One row per test of a claim, one column per cohort."""
    cells = claims.assign(cell=[f"{effect(row)} {row.verdict}" for row in claims.itertuples()],
                          test=claims["test"].map(in_words))
    cohorts = list(dict.fromkeys(claims["dataset"]))
    table = cells.pivot(index=["claim", "test"], columns="dataset", values="cell").reindex(columns=cohorts)
    return table.fillna(NOTHING).sort_index().reset_index()


def in_words(test: str) -> str:
    """An exploratory test: systems of the ablation in words, and a metric's title in the place of its name at the beginning."""
    name = re.split(r"[, ]", test)[0]
    return review.compared(metrics.short(name) + test[len(name):] if metrics.known(name) else test)


def probability(p: float) -> str:
    """A p-value for a table."""
    return NOTHING if pd.isna(p) else f"{p:.2g}"


def effect(row: tuple) -> str:
    """An effect with its interval; a third decimal where a hundredth would be the whole of it."""
    if pd.isna(row.effect):
        return NOTHING
    numbers = row.effect, row.low, row.high
    decimals = 3 if all(pd.isna(number) or abs(number) < 0.1 for number in numbers) else 2
    # Adding zero to what is rounded leaves no "-0.00".
    value, low, high = (f"{round(number, decimals) + 0.0:.{decimals}f}" for number in numbers)
    return f"{value} [{low}, {high}]" if pd.notna(row.low) else value


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table; `|` in a cell is escaped."""
    rule = ["---"] * table.shape[1]
    lines: Iterable[Iterable[object]] = [table.columns, rule, *table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', ESCAPED) for cell in line)} |" for line in lines)
