"""What a system took, for its page: its rows of the tables; where no notebook has written any, the logs of its trainings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from cmri_lib.book import facts
from cmri_lib.book.facts import Results
from cmri_lib.config.study import Study
from cmri_lib.reporting import metrics, review
from cmri_lib.reporting.readme import markdown
from cmri_lib.systems.label_maps import Chain
from cmri_lib.systems.system import System, file_name
from cmri_lib.training.checkpoint import read_note

#: Why a table has no training time: see `experiments.training.cost_rows`.
OTHER_MACHINE = ("A dot for the time: it was trained on another kind of machine than the one that measures here, and the "
                 "seconds of the two cannot be compared.")
FINISHED = ("Has the training finished? The same noise, drawn by the weights at half of the training and at its end (*still "
            "moving*: by more than 5 % and more than the paired 95 % interval; *settled*: the interval lies within 5 %):")
#: What `Run.folder` adds to the name of a system: number and digest of its patients, a seed, a variant.
PATIENTS = re.compile(r"-(\d+)-patients-[0-9a-f]{6}\b")


def section(study: Study, card: dict[str, Any], results: Results) -> str:
    """Markdown: a table of the costs that were measured, a table of the trainings of variants without such rows, or why there
    is neither."""
    measured = _measured(card, results)
    without = [one for one in facts.variants(card["id"]) if one.id not in set(measured["system"])]
    logs = pd.DataFrame([row for one in without if not isinstance(one, Chain) for row in _logs(study, one, results)])
    parts = [markdown(measured) if len(measured) else ""]
    if (measured.get(metrics.label("training_seconds"), pd.Series()) == "·").any():
        parts.append(OTHER_MACHINE)
    if len(logs):
        logged = set(logs.pop("of"))
        named = " and ".join(f"**{one.id}**" for one in without if one.id in logged)
        parts += [f"Of {named} no table of costs has a row: its sampling was not timed. The logs of its trainings, which are "
                  "published beside the weights, say:", markdown(logs)]
        parts += [f"{one.id} has {count:,} parameters." for one in without if (count := parameters(study, one)) is not None]
    if not len(measured) and not len(logs):
        parts.append("No table of costs has a row of it, and no log of its training is here: `dvc pull trainings.dvc` brings "
                     "those that are published.")
    return "\n\n".join(part for part in (*parts, _finished(study, card)) if part)


def _finished(study: Study, card: dict[str, Any]) -> str:
    """What the last doubling of its training changed, as notebook 06 has measured it; nothing of the systems of others."""
    file = study.root / "figures" / study.dataset / "06" / "last_doubling.csv"
    if not file.is_file():
        return ""
    found = pd.read_csv(file)
    rows = [{"system": row.system, "distance": metrics.short(row.metric), "at half of the training": f"{row.before:.4f}",
             "change by the second half": f"{row.value:+.4f} [{row.low:+.4f}, {row.high:+.4f}]", "": row.finished}
            for row in found[review.identity(found["system"]) == card["id"]].itertuples()]
    return f"{FINISHED}\n\n{markdown(pd.DataFrame(rows))}" if rows else ""


def parameters(study: Study, one: System | Chain) -> int | None:
    """The number of parameters of a system in the study's profile, counted as the tables do. None of a chain, whose parts are
    counted by themselves, and where it depends on how many vendors or diseases a cohort has."""
    if isinstance(one, Chain):
        return None
    few, more = (sum(p.numel() for p in one.build(study.params, known, 0).parameters())
                 for known in (facts.EVERYTHING, facts.MORE))
    return few if few == more else None


def _measured(card: dict[str, Any], results: Results) -> pd.DataFrame:
    scores = results.scores[review.identity(results.scores["system"]) == card["id"]]
    chosen = scores[scores["metric"].isin(facts.COSTS)]
    rows = []
    for (name, dataset, profile), own in chosen.groupby(["system", "dataset", "profile"], sort=False):
        values = own.set_index("metric")["value"]
        rows.append({"system": name, "cohort": dataset, "profile": profile,
                     **{metrics.label(m): metrics.number(m, values[m]) if m in values else "·" for m in facts.COSTS}})
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["system"])


def _logs(study: Study, one: System, results: Results) -> Iterator[dict[str, object]]:
    """A row for each published training of a system in the study's cohort and profile, its first stage's first."""
    # No dependency of the book's stage: a training that changes changes the results as well, and on these the book depends.
    published = study.root / "trainings" / study.dataset / study.profile
    titles = {file_name(name): name for name in (one.id, *results.scores["system"].unique())}
    first = [("first stage: ", one.first_stage.stage, one.first_stage.name)] if one.first_stage else []
    for kind, stage, name in [*first, ("", one.stage, one.id)]:
        own = re.compile(rf"(public-)?{re.escape(file_name(name))}(-\d+-patients|-seed|$)")
        for weights in sorted((published / stage).glob("*/weights.safetensors"), key=_place):
            if own.match(weights.parent.name):
                words = PATIENTS.sub(r", \1 patients ", weights.parent.name).strip()
                last = pd.read_csv(weights.with_name("log.csv")).iloc[-1]
                yield {"of": one.id, "training": kind + titles.get(file_name(words), words), "steps": f"{last['step']:,.0f}",
                       metrics.label("images_seen"): metrics.number("images_seen", last["images"]),
                       "Training time (s)": metrics.number("training_seconds", last["seconds"]),
                       "on": read_note(weights).get("device", "cpu")}


def _place(weights: Path) -> tuple[bool, list[tuple[bool, float, str]]]:
    """Order of trainings by the names of their folders: public ones first, numbers by size, and words after numbers (ε = ∞)."""
    parts = weights.parent.name.split("-")
    return parts[0] != "public", [(not part.isdigit(), float(part) if part.isdigit() else 0.0, part) for part in parts]
