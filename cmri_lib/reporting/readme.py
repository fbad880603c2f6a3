"""The results as a page to read: ``results/README.md``, written by notebook 13 from the tidy tables and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

#: Title → (metric, format) of a column, for systems that are told nothing and for those that are told something.
UNCONDITIONAL = {
    "KID, study features": ("kid_study", "interval"), "KID, Gabor": ("kid_classical", ".2f"), "recall": ("recall_study", ".2f"),
    "coverage": ("coverage_study", ".2f"), "top-octave power": ("band_excess", "+.2f"), "told by C2ST": ("c2st_study", ".2f"),
    "nearest to training": ("nearest_share_study", ".2f"), "s / image": ("seconds_per_image", ".3f"),
    "images seen": ("images_seen", ".0f")}
TOLD = {
    "Dice with the mask": ("dice_mean", "interval"), "HD95 Myo, mm": ("hd95_Myo_mm", ".1f"), "KID": ("kid_study", "interval"),
    "valid hearts": ("heart_valid", ".2f"), "coverage": ("coverage_study", ".2f"), "told by C2ST": ("c2st_study", ".2f"),
    "vendor heard": ("accuracy_vendor", ".2f"), "phase heard": ("accuracy_phase", ".2f"), "s / image": ("seconds_per_image", ".3f")}
NOTHING = "·"

HEAD = """# Results

Written by notebook 13; profile `{profile}`. Brackets: 95 % bootstrap over patients. Every row, with n, floor and ceiling: [scores.csv](scores.csv);
the ledger of claims: [claims.csv](claims.csv).

- *Real against real*: other patients' real slices in the place of samples, the floor of every distance.
- *Told by C2ST*: accuracy of a classifier that tells samples from real slices; ½: it cannot.
- *Nearest to training*: share of samples nearer to a training patient than to one held out; ½ without memory, 1 for copies.
- *Top-octave power*: log10 against real; below 0 is blur.
- *Dice with the mask*: what the frozen segmenter sees in the samples. *Valid hearts*: one cavity in a closed wall, the RV beside it.
- *Heard*: balanced accuracy of a frozen classifier for the word that was told.
- *Supported*: the whole interval of a claim's test lies on the claimed side; *not supported*: on the other; *undecided*: neither.
"""


def page(scores: pd.DataFrame, claims: pd.DataFrame, profile: str) -> str:
    """Markdown: for each cohort the systems that are told nothing and those that are, by KID; then the claims.

    Args:
        scores, claims: `results.union` of both kinds; rows of other profiles are left out.
    """
    scores, claims = scores[scores["profile"] == profile], claims[claims["profile"] == profile]
    parts = [HEAD.format(profile=profile)]
    for title, letter, columns in (("Unconditional systems", "U", UNCONDITIONAL), ("Conditional systems", "C", TOLD)):
        for dataset, part in scores.groupby("dataset", sort=False):
            board = systems(part, letter, columns)
            parts.append(f"## {title}: {dataset}\n\n{markdown(board)}\n")
    return "\n".join([*parts, f"## Claims of the review\n\n{markdown(tests(claims))}\n"])


def systems(scores: pd.DataFrame, letter: str, columns: dict[str, tuple[str, str]]) -> pd.DataFrame:
    """One row per system whose id begins with `letter` and a number, real patients first, then by the first KID."""
    mine = scores[scores["system"].str.match(rf"{letter}\d|real$")].drop_duplicates(["system", "metric"])
    ranks = mine[mine["metric"] == "kid_study"].set_index("system")["value"]
    order = sorted(ranks.index, key=lambda name: (name != "real", ranks[name]))
    rows = []
    for name in order:
        known = mine[mine["system"] == name].set_index("metric")
        cells = {title: _shown(known.loc[metric], kind) if metric in known.index else NOTHING
                 for title, (metric, kind) in columns.items()}
        told = {"told": known["conditioning"].iloc[0] if name != "real" else NOTHING} if letter == "C" else {}
        rows.append({"system": name if name != "real" else "*real against real*", **told, **cells})
    return pd.DataFrame(rows, columns=["system", *(["told"] if letter == "C" else []), *columns])


def tests(claims: pd.DataFrame) -> pd.DataFrame:
    """One row per test of a claim, one column per cohort."""
    cells = claims.assign(cell=[f"{_shown(row, 'interval', 'effect')} {row['verdict']}" for _, row in claims.iterrows()])
    cohorts = list(dict.fromkeys(claims["dataset"]))
    table = cells.pivot(index=["claim", "test"], columns="dataset", values="cell").reindex(columns=cohorts)
    return table.fillna(NOTHING).sort_index().reset_index()


def _shown(row: pd.Series, kind: str, value: str = "value") -> str:
    if kind != "interval":
        return format(row[value], kind)
    found, low, high = (f"{round(row[column], 2) + 0.0:.2f}" for column in (value, "low", "high"))  # no "-0.00"
    return f"{found} [{low}, {high}]" if pd.notna(row["low"]) else found


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table; `|` in a cell is escaped."""
    lines: Iterable[Iterable[object]] = [table.columns, ["---"] * table.shape[1], *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
