"""The pages of the systems: one each, and a table of all."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

from cmri_lib.book import facts
from cmri_lib.book.facts import Results
from cmri_lib.book.links import Links, anchor, row_of
from cmri_lib.config.study import Study
from cmri_lib.reporting import metrics, review
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, HEARTS
from cmri_lib.reporting.readme import markdown

NOT_MEASURED = "Not yet measured."
#: Figures of samples, in the order in which they are looked through for a system.
GRIDS = ("06/samples", "07/one_mask", "08/images", "15/stacks", "16/grid", "14/samples", "10/source_domain", "12/samples")


def page_of(identity: str) -> str:
    """The page of a system in the book."""
    return f"systems/{identity}.html"


def link(identity: str, page: str, text: str = "") -> str:
    """A link to a system's page, by default its id."""
    return anchor(page_of(identity), text or identity, page)


def page(study: Study, card: dict[str, Any], results: Results, links: Links) -> str:
    """Markdown of one system of the review, from its card (`facts.card`)."""
    identity, place = card["id"], page_of(card["id"])
    parts = [f"# {identity} {card['name']}", _where(study, card, links, place), _samples(study, card, links, place),
             "## Idea", *idea(study, card, links, place), "## In this study", _variants(card, links, place),
             "## Scores", *_scores(study, card, results),
             "## What it took", _costs(card, results), "## Claims", _claims(card, results, place), "## Training", *_settings(study, card)]
    return "\n\n".join(part for part in parts if part) + "\n"


def index(study: Study, results: Results, links: Links) -> str:
    """Markdown of the table of all systems."""
    place, rows = "systems/index.html", []
    for identity, name in review.SYSTEMS.items():
        found = facts.variants(identity)
        mine = _of(results.scores, study.dataset, study.profile)
        best = _nearest(mine[mine["system"].str.split(" ").str[0] == identity])
        values = {metric: _value(mine, best, metric) for metric in (ANATOMY, APPEARANCE, HEARTS, "dice_mean")}
        rows.append({"id": link(identity, place), "system": link(identity, place, name),
                     "family": ", ".join(dict.fromkeys(one.family for one in found)),
                     "condition": ", ".join(dict.fromkeys(review.system(one.conditioning) for one in found)),
                     **{metrics.short(metric): value or "·" for metric, value in values.items()}})
    text = (f"One page for each system of the review: its idea, its training, its scores, the claims that it takes part in. The numbers "
            f"are those of the cohort `{study.dataset}` and the profile `{study.profile}`, of the variant nearest to real images in anatomy; "
            f"a dot stands for what is not measured. What the columns mean: {anchor('results/tables.html', 'all tables', place)}.")
    tree = "\n".join(review.SYSTEMS)
    return f"# Systems\n\n{text}\n\n{markdown(pd.DataFrame(rows))}\n\n```{{toctree}}\n:hidden:\n{tree}\n```\n"


def idea(study: Study, card: dict[str, Any], links: Links, place: str) -> list[str]:
    """What makes it that system: what the modules say that it is made of, with their sources."""
    modules = list(dict.fromkeys(module for one in card["systems"] for module in one["made of"]))
    said = {module: facts.docstring(study.root, module) for module in modules}
    rows = [f"- {links.to(file_of(module), module.removeprefix('cmri_lib.'), place)}: {prose(paragraphs[0])}"
            for module, paragraphs in said.items()]
    more = [f"**{module.removeprefix('cmri_lib.')}.** {prose(' '.join(paragraphs[1:]))}" for module, paragraphs in said.items()
            if paragraphs[1:]]
    first = prose(said[modules[0]][0]) if modules else NOT_MEASURED
    return [first, "Made of:", "\n".join(rows), "### Sources", *more] if modules else [first]


def file_of(module: str) -> str:
    return module.replace(".", "/") + ".py"


def prose(text: str) -> str:
    """A docstring as Markdown: what would be markup in one and is not in the other is escaped."""
    return re.sub(r"([*<$\[])", r"\\\1", text.replace("``", "`"))


def _where(study: Study, card: dict[str, Any], links: Links, place: str) -> str:
    entry = facts.entry_file(study.root, card["id"])
    numbers = dict.fromkeys(one["notebook"] for one in card["systems"] if one["notebook"])
    said = [links.to(links.notebook(number), f"notebook {number}", place) for number in numbers]
    data = anchor(f"systems/{card['id']}.json", "model card (JSON)", place)
    parts = [f"Trained in {' and '.join(said)}." if said else "",
             f"Its entry: {links.to(entry, entry, place)}." if entry else "",
             f"The page as data: {data}."]
    return " ".join(filter(None, parts))


def _variants(card: dict[str, Any], links: Links, place: str) -> str:
    rows = []
    for one in card["systems"]:
        start = one.get("starts from") or (f"masks: {one['masks']}; images: {one['images']}" if "masks" in one else "random weights")
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
    if scores.empty:
        return [NOT_MEASURED]
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
    return parts or [NOT_MEASURED]


def _costs(card: dict[str, Any], results: Results) -> str:
    scores = _mine(card, results)
    chosen = scores[scores["metric"].isin(facts.COSTS)]
    if chosen.empty:
        return NOT_MEASURED
    rows = []
    for (name, dataset, profile), own in chosen.groupby(["system", "dataset", "profile"], sort=False):
        values = own.set_index("metric")["value"]
        rows.append({"system": name, "cohort": dataset, "profile": profile,
                     **{metrics.label(m): metrics.number(m, values[m]) if m in values else "·" for m in facts.COSTS}})
    return markdown(pd.DataFrame(rows))


def _claims(card: dict[str, Any], results: Results, place: str) -> str:
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
    return [f"The settings of the profile `{study.profile}`. They stand in `params.yaml`.",
            "<details><summary>Settings</summary>", markdown(table), "</details>"]


def _samples(study: Study, card: dict[str, Any], links: Links, place: str) -> str:
    names = [one["id"] for one in card["systems"]]
    for grid in GRIDS:
        file = study.root / "figures" / study.dataset / f"{grid}.png"
        if not file.with_suffix(".csv").is_file() or not file.is_file():
            continue
        listed = list(dict.fromkeys(pd.read_csv(file.with_suffix(".csv")).get("row", pd.Series(dtype=str)).astype(str)))
        path = file.relative_to(study.root).as_posix()
        found = [row for row in listed if row in names or row.endswith(f", {card['id']}") or row.split("\n")[0] in names]
        cut = [row_of(file, path, place, listed.index(row), len(listed), f"Samples: {row}") for row in found]
        if any(cut):
            links.files.add(path)
            return "\n\n".join(cut)
    return ""


def _mine(card: dict[str, Any], results: Results) -> pd.DataFrame:
    return results.scores[results.scores["system"].str.split(" ").str[0] == card["id"]]


def _of(scores: pd.DataFrame, dataset: str, profile: str) -> pd.DataFrame:
    return scores[(scores["dataset"] == dataset) & (scores["profile"] == profile)]


def _nearest(scores: pd.DataFrame) -> str:
    """The variant with the smallest distance of anatomy, or the first; "" if there is none."""
    lead = scores[scores["metric"] == ANATOMY].sort_values("value", kind="stable")
    return next(iter([*lead["system"], *scores["system"]]), "")


def _value(scores: pd.DataFrame, system: str, metric: str) -> str:
    found = scores[(scores["system"] == system) & (scores["metric"] == metric)]
    return metrics.number(metric, found["value"].iloc[0]) if len(found) else ""
