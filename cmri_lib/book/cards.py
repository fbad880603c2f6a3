"""Cards: one for each cohort, one for each family of generators, on a page and as JSON; and the checklist of reporting.

What a cohort is, stands in `cohort.data_sets`, what a family scores in the results; what each is for, in ``cards.yaml``.

Gebru et al., "Datasheets for Datasets", CACM 64(12), 2021; Mitchell et al., "Model Cards for Model Reporting", FAT* 2019;
Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update", Radiology: AI 6(4), 2024.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from cmri_lib.book import facts, systems
from cmri_lib.book.facts import Results
from cmri_lib.book.links import Links, anchor
from cmri_lib.cohort.data_sets import DATA_SETS, is_virtual
from cmri_lib.cohort.splits import load_split
from cmri_lib.config.reading import read_yaml
from cmri_lib.config.study import Study
from cmri_lib.errors import SplitError
from cmri_lib.reporting import metrics
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, HEARTS
from cmri_lib.reporting.readme import markdown

COHORTS, FAMILIES, CHECKLIST = "guide/cohorts", "guide/families", "guide/checklist"
#: Metrics of a family's card.
MEASURED = (ANATOMY, APPEARANCE, HEARTS, "dice_mean", "c2st_image", "near_copies_pixel", "parameters", "images_seen",
            "seconds_per_image")


@cache
def typed() -> dict[str, Any]:
    """What people have written of cohorts, of families, and of all generators."""
    return read_yaml(Path(__file__).with_name("cards.yaml"))


def pages(study: Study, results: Results, links: Links, files: Path) -> dict[str, str]:
    """Path of a page, without its ending → Markdown; the cards as JSON are put among the files."""
    cohorts = {name: cohort_card(study, name) for name in DATA_SETS}
    families = {family: family_card(study, family, results) for family in typed()["families"]}
    (files / "guide").mkdir(parents=True, exist_ok=True)
    for page, cards in ((COHORTS, cohorts), (FAMILIES, families)):
        (files / f"{page}.json").write_text(json.dumps(cards, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    checklist = Path(__file__).with_name("checklist.md").read_text(encoding="utf-8").replace("{trainings}", trainings(study))
    return {COHORTS: _cohorts(cohorts), FAMILIES: _families(study, families),
            CHECKLIST: links.rewrite(checklist, "", f"{CHECKLIST}.html")}


def cohort_card(study: Study, name: str) -> dict[str, Any]:
    """What is known of one cohort, the study's split of it, what it is for and what are its limits."""
    try:
        split = load_split(name, study.root / "data" / name)["split"].value_counts().to_dict()
    except SplitError:
        split = {}  # made when the cohort is added
    command = "" if is_virtual(name) else f"python -m cmri_lib.cohort.add {name} PATH --layout {name}"
    said = typed()["cohorts"][name]
    return {**asdict(DATA_SETS[name]), "split of this study": split, "brought in by": command,
            "intended use": said["use"], "limits": said["limits"]}


def family_card(study: Study, family: str, results: Results) -> dict[str, Any]:
    """The systems of one family, what they score, what they are for and what to mind."""
    said, everybody, mine = typed()["families"][family], typed()["all"], results.of(study)
    mine = mine[mine["metric"].isin(MEASURED)]
    members = [one.id for identity in facts.identities() for one in facts.variants(identity) if one.family == family]
    measured = {name: mine[(mine["system"] == name) & mine["value"].notna()].drop_duplicates("metric") for name in members}
    return {"family": family, "idea": said["idea"], "intended use": [everybody["use"], said["use"]],
            "not intended": everybody["limits"], "limits": said["limits"], "licence": "Apache-2.0",
            "cohort": study.dataset, "profile": study.profile,
            "systems": {name: dict(zip(rows["metric"], rows["value"].astype(float))) for name, rows in measured.items()}}


def trainings(study: Study) -> str:
    """How many trainings, with other seeds, generators have, as the checklist says it."""
    chosen = study.params.fidelity
    groups = {", ".join(chosen.repeated): chosen.seeds,
              "what the primary tests of M1 to M6 compare": chosen.ablation_seeds}
    several = [f"{count} of each of {names}" for names, count in groups.items() if count > 1 and names]
    return "; ".join([*several, "one of most other generators" if several else "One of each generator"])


def _cohorts(cards: dict[str, dict[str, Any]]) -> str:
    data = anchor(f"{COHORTS}.json", "as JSON", f"{COHORTS}.html")
    parts = [f"# Cohorts\n\nA card for each cohort that the study knows ({data})."]
    for card in cards.values():
        split = ", ".join(f"{count} {name}" for name, count in card["split of this study"].items())
        command = f"`{card['brought in by']}`" if card["brought in by"] else "·"
        said = {**{key: card[key] for key in ("patients", "centres", "vendors", "groups", "labels", "terms")},
                "split of this study, patients": split or "made when it is added", "to cite": card["source"],
                "from": card["where"], "brought in by": command}
        table = markdown(pd.DataFrame({"": list(said), " ": [str(value) for value in said.values()]}))
        parts.append(f"## {card['name']}\n\n{table}\n\n**Intended use**: {card['intended use']}.\n\n"
                     f"**Limits.** {card['limits']}")
    return "\n\n".join(parts) + "\n"


def _families(study: Study, cards: dict[str, dict[str, Any]]) -> str:
    place, everybody = f"{FAMILIES}.html", typed()["all"]
    data, each, why = (anchor(target, words, place) for target, words in (
        (f"{FAMILIES}.json", "as JSON"), ("systems/index.html", "a page of its own"), ("systems/index.html", "why")))
    parts = [f"# Families of generators\n\nA card for each family ({data}); each system has {each}. Scores are those of the "
             f"cohort `{study.dataset}`, profile `{study.profile}`; a dot stands for what is not measured or does not apply "
             f"({why}).",
             f"**Intended use** of all: {everybody['use']}. {everybody['limits']}"]
    for family, card in cards.items():
        measured = [metric for metric in MEASURED if any(metric in scores for scores in card["systems"].values())]
        rows = [{"system": systems.link(name.split(" ")[0], place, name),
                 **{metrics.short(m): metrics.number(m, scores[m]) if m in scores else "·" for m in measured}}
                for name, scores in card["systems"].items()]
        parts.append(f"## {family[0].upper() + family[1:]}\n\n{card['idea']}\n\n**Good for**: {card['intended use'][1]}.\n\n"
                     f"**To mind.** {card['limits']}\n\n{markdown(pd.DataFrame(rows))}")
    return "\n\n".join(parts) + "\n"
