"""The pages of the systems: one each, and a table of all."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from cmri_lib.book import costs, facts
from cmri_lib.book.facts import Results
from cmri_lib.book.links import Links, anchor, row_of
from cmri_lib.config.study import Study
from cmri_lib.reporting import metrics, privacy_metrics, privacy_report, review
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, HEARTS
from cmri_lib.reporting.readme import markdown
from cmri_lib.systems.system import file_name

NOT_MEASURED = "No table of results names it: its notebook has not been run."
NOT_ATTACKED = "No attack on its weights was tried. Near copies among its samples, if they were looked for, are scores above."
#: Metrics of the index.
COLUMNS = (ANATOMY, APPEARANCE, HEARTS, "dice_mean")
#: The number of a paper, as docstrings name it: "arXiv 2006.11239", or alone in brackets or a list.
PAPER = re.compile(r"(?:arXiv )?(?<![\d.])(\d{4}\.\d{4,5})(?![\d.]\d)")
ATTACKED = ("Its notebook attacks it, and writes no report. What was measured: the AUC of attacks (0.5: guessing) with 95 % "
            "intervals, and bounds of the privacy loss ε. *Null* and *blind baseline* are controls: no attack, so they tell "
            "nobody. *epsilon = inf*: without noise, so without a bound. A dot: not of this training.")
REAL_IMAGES = "*Real images*: what real slices score in the place of the samples; a dot where there is no such score."
#: Figures of samples, in the order in which they are looked through for a system; {} is its id in small letters.
GRIDS = ("06/samples", "07/one_mask", "08/images", "15/stacks", "16/grid", "14/samples", "14/rebuilt", "10/source_domain",
         "12/samples_{}")


def page_of(identity: str) -> str:
    """The page of a system in the book."""
    return f"systems/{identity}.html"


def link(identity: str, page: str, text: str = "") -> str:
    """A link to a system's page, by default its id."""
    return anchor(page_of(identity), text or identity, page)


def page(study: Study, card: dict[str, Any], results: Results, links: Links) -> str:
    """Markdown of one system, from its card (`facts.card`)."""
    identity, place = card["id"], page_of(card["id"])
    parts = [f"# {identity} {card['name']}", _where(study, card, links, place), _samples(study, card, links, place),
             "## Idea", *idea(study, card, links, place), "## In this study", _variants(card),
             "## Scores", *_scores(study, card, results),
             "## Privacy", _privacy(study, card, results, links, place),
             "## What it took", costs.section(study, card, results), "## Claims", _claims(card, place),
             "## Training", *_settings(study, card)]
    return "\n\n".join(part for part in parts if part) + "\n"


def index(study: Study, results: Results) -> str:
    """Markdown of the table of all systems: a row for each variant that the study has of them."""
    place = "systems/index.html"
    mine = results.of(study)
    heartless = review.without_hearts(mine)
    rows = [{"id": "", "system": "*real images*", "condition": "·", **_values(mine, "real")}]
    for identity in facts.identities():
        for one in facts.variants(identity):
            note = " (no hearts)" if one.id in heartless else ""
            rows.append({"id": link(identity, place),
                         "system": link(identity, place, one.id.removeprefix(f"{identity} ")) + note,
                         "condition": review.system(one.conditioning), **_values(mine, one.id)})
    tables = anchor("results/tables.html", "All tables", place)
    text = (f"One page for each system of the review, then for each of one's own: its idea, sources, scores, the claims that "
            f"it takes part in, its training. Numbers are those of the cohort `{study.dataset}`, profile `{study.profile}`; "
            f"a dot stands for what is not measured or does not apply. {tables} say what the columns mean, and have intervals.")
    tree = "\n".join(facts.identities())
    why = "\n".join(["- *Dice with the mask* needs a mask, which the condition of a system must hold.",
                     *(f"- {link(identity, place)}: {one['judged']}" for identity, one in facts.ideas().items()
                       if "judged" in one)])
    return (f"# Systems\n\n{text}\n\n{markdown(pd.DataFrame(rows))}\n\n## Why there are dots\n\n{why}\n\n"
            f"```{{toctree}}\n:hidden:\n{tree}\n```\n")


def idea(study: Study, card: dict[str, Any], links: Links, place: str) -> list[str]:
    """What makes it that system, as it was written down; what the modules say that it is made of, with their sources."""
    formulas = "\n\n".join(f"$$\n{formula}\n$$" for formula in card["formulas"])
    modules = list(dict.fromkeys(module for one in card["systems"] for module in one["made of"]))
    said = {module: facts.docstring(study.root, module) for module in modules}
    short = {module: module.removeprefix("cmri_lib.") for module in modules}
    named = [links.to(file_of(module), short[module], place) for module in modules]
    rows = [f"- {name}: {prose(said[module][0])}" for name, module in zip(named, modules)]
    more = [f"**{short[module]}.** {prose(' '.join(paragraphs[1:]))}" for module, paragraphs in said.items() if paragraphs[1:]]
    made = ["### Made of", "\n".join(rows), "### Details and sources", *more] if modules else []
    paper = f"Described by {prose(card['paper'])}." if "paper" in card else ""
    return [card["idea"], formulas, card["where"], paper, *made]


def file_of(module: str) -> str:
    return module.replace(".", "/") + ".py"


def prose(text: str) -> str:
    """A docstring as Markdown: what would be markup in one and is not in the other is escaped, papers get their addresses."""
    escaped = re.sub(r"([*<$\[])", r"\\\1", text.replace("``", "`"))
    return PAPER.sub(lambda found: f"[{found[0]}](https://arxiv.org/abs/{found[1]})", escaped)


def _where(study: Study, card: dict[str, Any], links: Links, place: str) -> str:
    entry = facts.entry_file(study.root, card["id"])
    numbers = dict.fromkeys(one["notebook"] for one in card["systems"] if one["notebook"])
    said = [links.to(links.notebook(number), f"notebook {number}", place) for number in numbers]
    data = anchor(f"systems/{card['id']}.json", "model card (JSON)", place)
    parts = [f"Trained in {' and '.join(said)}." if said else "",
             f"Its entry: {links.to(entry, entry, place)}." if entry else "",
             f"The page as data: {data}."]
    return " ".join(filter(None, parts))


def _variants(card: dict[str, Any]) -> str:
    rows = []
    for one in card["systems"]:
        chained = f"masks: {one['masks']}; images: {one['images']}" if "masks" in one else ""
        start = one.get("starts from") or chained or "random weights"
        rows.append({"system": one["id"], "family": one["family"], "condition": review.system(one["conditioning"]),
                     "starts from": start, "first stage": one.get("first stage") or "·",
                     "never learns from": ", ".join(one.get("never learns from") or []) or "·"})
    table = pd.DataFrame(rows)
    return markdown(table.loc[:, [c for c in table if c in ("system", "family", "condition") or set(table[c]) != {"·"}]])


def _cohorts(scores: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    for (dataset, profile), rows in scores.groupby(["dataset", "profile"], sort=False):
        yield f"cohort `{dataset}`, profile `{profile}`", rows


def _scores(study: Study, card: dict[str, Any], results: Results) -> list[str]:
    scores = _mine(card, results)
    parts = []
    # The cohort of the book first.
    scores = scores.assign(last=scores["dataset"] != study.dataset).sort_values("last", kind="stable")
    for where, rows in _cohorts(scores):
        heartless = review.without_hearts(rows)
        for name, own in rows.groupby("system", sort=False):
            shown = facts.headline(own)
            if len(shown):
                note = " It shows no hearts: nothing else of it counts." if name in heartless else ""
                parts += [f"**{name}**, {where}.{note}", markdown(shown.replace("", "·"))]
    return [card.get("judged", ""), *([REAL_IMAGES, *parts] if parts else [NOT_MEASURED])]


def _privacy(study: Study, card: dict[str, Any], results: Results, links: Links, place: str) -> str:
    """The sentence of each audit of one of its variants, with a link to the report; then attacks without a report."""
    lines, audited = [], set()
    for one in card["systems"]:
        for file in sorted((study.root / "results").glob(f"*/privacy/{file_name(one['id'])}.json")):
            found = json.loads(file.read_text(encoding="utf-8"))
            audited.add((found["system"], found["dataset"]))
            report = links.to(file.with_suffix(".md").relative_to(study.root).as_posix(), "report", place)
            lines.append(f"- **{found['system']}**, cohort `{found['dataset']}`: {privacy_report.headline(found)} ({report})")
    others = _attacks(_mine(card, results), audited)
    return "\n\n".join(filter(None, ["\n".join(lines), others])) or NOT_ATTACKED


def _attacks(scores: pd.DataFrame, audited: set[tuple[str, str]]) -> str:
    """The attacks on trainings of systems that are not among the audited (system, cohort): a row for each training."""
    scores = scores[scores["metric"].str.match("attack_auc_(?!max)") | scores["metric"].isin(list(privacy_metrics.EPSILON))]
    of = scores["system"].str.replace(r", (\d+ patients|null|blind).*", "", regex=True)
    rows = scores[np.array([pair not in audited for pair in zip(of, scores["dataset"])], bool)]
    if not rows["metric"].str.startswith("attack").any():
        return ""
    names = list(dict.fromkeys(rows["metric"]))
    table = [{"training": system, "cohort": dataset,
              **dict.fromkeys(map(metrics.short, names), "·"),
              **{metrics.short(row.metric): metrics.with_interval(row) for row in own.itertuples()}}
             for (system, dataset), own in rows.groupby(["system", "dataset"], sort=False)]
    return f"{ATTACKED}\n\n{markdown(pd.DataFrame(table))}"


def _claims(card: dict[str, Any], place: str) -> str:
    if not card["claims"]:
        return "It takes part in the test of no claim."
    return "\n".join(f"- {anchor(f'claims/{claim}.html', claim, place)}: {review.CLAIMS[claim]}" for claim in card["claims"])


def _settings(study: Study, card: dict[str, Any]) -> list[str]:
    trained = {one["id"]: one["training"] for one in card["systems"] if "training" in one}
    if not trained:
        return ["It trains nothing of its own."]
    table = pd.DataFrame(trained)
    table.insert(0, "setting", [f"`{name}`" for name in table.index])
    table = table.map(lambda value: "·" if value is None else value)
    return [f"The settings of the profile `{study.profile}`. They stand in `params.yaml`. A dot: a setting it does not have.",
            "<details><summary>Settings</summary>", markdown(table), "</details>"]


def _named(text: str) -> list[str]:
    """The ids of systems in a text; T1 is a time unless somebody calls a system so."""
    return [word for word in re.findall(rf"\b{review.OWN_ID}\b", text) if word in facts.identities()]


def _samples(study: Study, card: dict[str, Any], links: Links, place: str) -> str:
    """Its rows of the first figure that has any; the whole figure if it is of this system alone, for the rows beside them, the
    real images or the sources, say what to compare them with."""
    for grid in GRIDS:
        path = f"figures/{study.dataset}/{grid.format(card['id'].lower())}.png"
        file = study.root / path
        if not file.with_suffix(".csv").is_file() or not file.is_file():
            continue
        listed = list(dict.fromkeys(pd.read_csv(file.with_suffix(".csv")).get("row", pd.Series(dtype=str)).astype(str)))
        named = set(_named(" ".join(listed)))
        if grid.endswith("{}") or named == {card["id"]}:
            return links.figure(path, place, f"{card['id']} {card['name']}; rows: {', '.join(listed)}")
        found = [row for row in listed if card["id"] in _named(row)]
        cut = [row_of(file, path, place, listed.index(row), len(listed), f"Samples: {row}") for row in found]
        if any(cut):
            links.files.add(path)
            return "\n\n".join(cut)
    return f"No figure of the cohort `{study.dataset}` that may be published shows what it draws."


def _mine(card: dict[str, Any], results: Results) -> pd.DataFrame:
    return results.scores[review.identity(results.scores["system"]) == card["id"]]


def _values(scores: pd.DataFrame, system: str) -> dict[str, str]:
    """The columns of the index for one system, or for the real images."""
    values = {}
    for metric in COLUMNS:
        found = scores[(scores["system"] == system) & (scores["metric"] == metric)]["value"]
        real = facts.real_value(scores[scores["metric"] == metric], metric) if system == "real" else math.nan
        number = next(iter(found), None if math.isnan(real) else real)
        values[metrics.short(metric)] = "·" if number is None else metrics.number(metric, number)
    return values
