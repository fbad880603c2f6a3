"""The report on anybody's samples: one folder with a page (HTML and Markdown), tables (CSV, JSON) and two figures."""

from __future__ import annotations

import html
import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from markdown_it import MarkdownIt

from cmri_lib.config.study import Study
from cmri_lib.experiments.own_generator import Judgement
from cmri_lib.experiments.sample_sections import sections
from cmri_lib.reporting import comparison_plots, figures, metrics, review
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, HEARTS
from cmri_lib.reporting.readme import markdown
from cmri_lib.reporting.results import SCORE_COLUMNS, json_values, union

#: Columns of samples in the figure.
SHOWN = 12
#: Metrics of the first lines and of the first table.
FIRST = (ANATOMY, APPEARANCE, HEARTS, "dice_mean")
BESIDE = (*FIRST, "c2st_image", "kid_study", "precision_study", "recall_study")
_STYLE = ("body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}img{max-width:100%}"
          "table{border-collapse:collapse;font-size:.85rem;display:block;overflow-x:auto}"
          "td,th{border:1px solid #ccc;padding:.25rem .5rem}")
_PAGE = """# {name}, judged by this study

{count} samples{masked}, compared with real patients of the cohort {dataset} whom no generator has learnt from. Instruments and
floors are those of the profile {profile}.

{summary}

![Samples of {name}](samples.png)

## Beside the systems of the study

{beside}

The first row is what real images of other patients score. A green cell has a 95 % interval that reaches it, a yellow one does
not. Sets may differ in size; the floor of each measure is that of sets as large as yours.

![Scoreboard](scoreboard.png)

{sections}

## Every measure

{table}
{notes}"""


def write_report(study: Study, found: Judgement, folder: str | Path) -> Path:
    """Write ``report.html``, ``report.md``, ``report.json``, ``scores.csv``, ``samples.png`` and ``scoreboard.png``.

    Returns the page. The samples are shown as they are, with the outlines of their masks:
    whose they are, only their owner knows.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    every = pd.DataFrame([{"dataset": study.dataset, "profile": study.profile, **row} for row in found.rows],
                         columns=list(SCORE_COLUMNS))
    every.to_csv(folder / "scores.csv", index=False, float_format="%.6g")
    mine = every[every["system"] == found.of.id]  # the others are controls
    board = pd.concat([mine, _of_the_study(study, found)], ignore_index=True)
    figures.use_style()
    spread = np.unique(np.linspace(0, len(found.samples) - 1, SHOWN).astype(int))
    figures.slice_grid({found.of.id: found.samples.take(spread)}).savefig(folder / "samples.png")
    comparison_plots.scoreboard(board).savefig(folder / "scoreboard.png")
    text = page(study, found, mine, board)
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "report.html").write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(found.of.id)}</title><style>{_STYLE}</style>"
        f"<body>{MarkdownIt('commonmark', {'html': False}).enable('table').render(text)}</body></html>", encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(json_values(facts(study, found)), indent=1, ensure_ascii=False) + "\n",
                                        encoding="utf-8")
    return folder / "report.html"


def page(study: Study, found: Judgement, mine: pd.DataFrame, board: pd.DataFrame) -> str:
    """The page in Markdown. `mine`: the rows of the samples; `board`: those of the study's systems as well."""
    notes = "".join(f"\n- {note}" for note in found.notes)
    return _PAGE.format(name=found.of.id, count=len(found.samples), dataset=study.dataset, profile=study.profile,
                        masked=" with masks" if found.of.conditioning == "mask" else "", summary=summary(found),
                        beside=markdown(beside(board)), sections=sections(found), table=markdown(_every(mine)),
                        notes=f"\n## Left out\n{notes}\n" if notes else "")


def facts(study: Study, found: Judgement) -> dict[str, object]:
    """What the page says, machine-readable, and without images or names of patients."""
    copies, members, useful = found.copies, found.membership, found.utility
    return {"generator": found.of.id, "dataset": study.dataset, "profile": study.profile, "samples": len(found.samples),
            "scores": found.rows,
            "copies": copies and {"spaces": copies.spaces, "planted copies found": copies.planted,
                                  "suspected copies": copies.suspects},
            "membership": members and {
                "members": members.members, "strangers": members.strangers, "verdict": members.verdict(),
                "strongest": members.strongest.attack, "exposed": members.exposed, "blind": asdict(members.blind),
                "attacks": [asdict(one) for one in members.attacks]},
            "utility": useful and {"slices": useful.slices, "patients": useful.patients,
                                   "difference": asdict(useful.difference)},
            "cost": found.cost, "notes": found.notes}


def summary_of(found: Judgement) -> str:
    """`summary`, for a terminal."""
    return summary(found).replace("**", "")


def summary(found: Judgement) -> str:
    """A line for each metric of the headline: value, interval, what real images score, and whether they are reached; and what
    makes all of them worthless: no hearts, copies, or members who are recognised."""
    mine, lines = pd.DataFrame([row for row in found.rows if row["system"] == found.of.id]), []
    for row in mine[mine["metric"].isin(FIRST)].itertuples():
        references = metrics.references(pd.DataFrame([row._asdict()]), row.metric)
        real = next((value for value, kind, _ in references if kind == "real"), math.nan)
        verdict = {None: "cannot be judged", True: "reached", False: "not reached"}[review.reaches(row, row.metric)]
        lines.append(f"- **{metrics.label(row.metric)}**: {metrics.with_interval(row)}; real images "
                     f"{metrics.number(row.metric, real)}: {verdict}")
    if heartless := sorted(review.without_hearts(mine)):
        lines.append(f"- **{heartless[0]} shows no hearts**: fewer than half as many valid ones as real images, so nothing "
                     "else of it is called good")
    copied = mine[mine["metric"].str.startswith("near_copy_excess") & (mine["low"] > 0)]
    if len(copied):
        most = copied.loc[copied["value"].idxmax()]
        lines.append(f"- **Copies of training slices**: {metrics.with_interval(most)} of the samples, beyond those that "
                     "are near strangers as well. Whatever is good above, training slices would score too")
    if found.membership and found.membership.exposed:
        auc = found.membership.strongest.found
        lines.append(f"- **Patients who were learnt from are recognised** from the samples alone: AUC {auc.value:.2f} "
                     f"[{auc.low:.2f}, {auc.high:.2f}], guessing has 0.5")
    return "\n".join(lines)


def beside(board: pd.DataFrame) -> pd.DataFrame:
    """Systems × the metrics `BESIDE`, real images first, then in the order of the first."""
    measured = dict.fromkeys(board["metric"])
    names = [name for name in BESIDE if name in measured] or list(measured)[:len(BESIDE)]
    shown = board[board["metric"].isin(names)].drop_duplicates(["system", "metric"])
    shown = shown.assign(cell=[metrics.with_interval(row) for row in shown.itertuples()])
    cells = shown.pivot(index="system", columns="metric", values="cell")
    lead = shown[shown["metric"] == names[0]].set_index("system")["value"]
    order = sorted(cells.index, key=lambda name: (name != "real", lead.get(name, math.inf)))
    return cells.loc[order, names].rename(columns=metrics.short).fillna("").reset_index()


def _of_the_study(study: Study, found: Judgement) -> pd.DataFrame:
    """The study's own rows of the same cohort and profile: unconditional systems beside samples without a mask, others beside
    those with one."""
    known = union(study.root)
    mine = known[(known["dataset"] == study.dataset) & (known["profile"] == study.profile)]
    alike = review.unconditional(mine) == (found.of.conditioning == "none")
    other = mine["system"] != found.of.id  # a generator may be called like one of the study's, which it then replaces
    return mine[(review.listed(mine["system"]) & alike & other) | (mine["system"] == "real")]


def _every(mine: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame([{"axis": row.axis, "metric": metrics.label(row.metric) if metrics.known(row.metric) else row.metric,
                          "value": metrics.with_interval(row), "floor": metrics.number(row.metric, row.floor) or "",
                          "ceiling": metrics.number(row.metric, row.ceiling) or "", "better": row.better}
                         for row in mine.itertuples()])
