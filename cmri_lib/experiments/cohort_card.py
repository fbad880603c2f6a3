"""The card of a synthetic cohort: which network drew it, under whose masks, how good and how private it is.

Two files say the same: ``card.json`` for programs, ``README.md`` for readers. Neither holds a date or a path
of this machine, so that one request has one card; neither names a patient of a cohort of real ones.
"""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cmri_lib.cohort.data_sets import is_virtual, terms
from cmri_lib.config.study import Study
from cmri_lib.experiments.training import training_folder, training_log
from cmri_lib.generators.base import Generator
from cmri_lib.measures.instruments.frozen import fingerprint
from cmri_lib.reporting.metrics import headline, label, number
from cmri_lib.reporting.results import Named, json_values, union
from cmri_lib.systems.system import Run

NOT_AUDITED = "not audited"
_OF_REAL = ("The masks are outlines of real patients, and the network has learnt from their images: the terms and the "
            "consents of the training cohort hold for this one. Ask those who answer for it before you pass this on.")


def synthetic_card(study: Study, of: Named, run: Run, generator: Generator, *, request: Mapping[str, Any],
                   learnt: Sequence[str], masks_of: Sequence[str], table: pd.DataFrame) -> dict[str, Any]:
    """The card as JSON.

    Args:
        of: the system or chain. run: the training of the network that draws the images.
        request: what was asked for, see `synthetic_cohort.Request`.
        learnt: the patients of the slices that the network has learnt from.
        masks_of: for each synthetic patient, the training patient whose masks he or she has.
        table: the cohort's table, a row per patient and phase.
    """
    scores = union(study.root)
    ours = (scores["dataset"] == study.dataset) & (scores["profile"] == study.profile) & (scores["system"] == of.id)
    private = scores["axis"] == "privacy"
    audit, others = _records(scores[ours & private]), _records(scores[ours & ~private])
    used = sorted(set(masks_of))
    accepted = Counter(word for text in table.drop_duplicates("patient")["accept"] for word in text.split())
    return {
        "software": {name: importlib.metadata.version(name) for name in ("cmri_lib", "torch")},
        "system": {"id": of.id, "family": of.family, "conditioning": of.conditioning,
                   "given": list(generator.conditioning.fields), "evaluations_per_image": generator.nfe},
        "run": {"id": run.id, "folder": training_folder(study, run).relative_to(study.work("")).as_posix(),
                "seed": study.seed if run.seed is None else run.seed, "patients": len(set(learnt)),
                "starts_from": None if run.start is None else run.start.id,
                "images_seen": int(training_log(study, run)["images"].iloc[-1]), "weights": fingerprint(generator)},
        "profile": study.profile,
        "training_cohort": study.dataset,
        "request": {name: list(value) if isinstance(value, tuple) else value for name, value in request.items()},
        "patients": int(table["patient"].nunique()),
        "masks": {"of": "training patients", "patients": len(used),
                  **({"names": used} if is_virtual(study.dataset) else {})},
        "blank_slices": int(table["blank_slices"].sum()),
        "accepted": dict(sorted(accepted.items())),
        "scores": others,
        "privacy": {"status": "the system was audited, this cohort was not" if audit else NOT_AUDITED, "audit": audit},
        "licence": " ".join(filter(None, (terms(study.dataset), "" if is_virtual(study.dataset) else _OF_REAL))),
    }


def page(card: Mapping[str, Any]) -> str:
    """``README.md`` of the cohort."""
    system, run, masks, wanted = card["system"], card["run"], card["masks"], card["request"]
    which = ", ".join(f"{column} {wanted[column]}" for column in ("vendor", "disease") if wanted[column])
    accepted = ", ".join(f"{name} in {count} patients" for name, count in card["accepted"].items())
    scores = "of samples of the system that the study has measured" if card["scores"] else "none on record"
    facts = {
        "System": f"{system['id']} ({system['family']}; conditioning: {system['conditioning']}), "
                  f"{system['evaluations_per_image']} network evaluations per image.",
        "Training": f"run `{run['id']}` of profile `{card['profile']}`, seed {run['seed']}, on {run['patients']} training "
                    f"patients of the cohort `{card['training_cohort']}`; {run['images_seen']} images seen"
                    f"{f', after those of {start}' if (start := run['starts_from']) else ''}; weights "
                    f"`{run['weights']}`.",
        "Conditions": f"masks of {masks['patients']} of those patients, none of a validation, test or hold-out patient. "
                      "Equal numbers in the column `masks` are masks of one patient: keep them on one side of a split.",
        "Noise": f"seed {wanted['seed']}; one noise for all slices of a patient.",
        "Blank slices": f"{card['blank_slices']}, labelled in the other phase only: nothing was drawn there (−1, label 0).",
        "Plausibility": f"{f'findings accepted: {accepted}' if accepted else 'nothing found'} (column `accept`).",
        "Privacy": f"{card['privacy']['status']}." + _listed(card["privacy"]["audit"]),
        "Scores": f"{scores}." + _listed(card["scores"]),
        "Licence": card["licence"],
        "Software": ", ".join(f"{name} {version}" for name, version in card["software"].items()) + "."}
    return "\n\n".join([
        "# Synthetic cardiac MRI",
        f"{card['patients']} synthetic patients{f' ({which})' if which else ''}: short-axis stacks at ED and ES. A network "
        "drew the images; none was acquired. For research, not for diagnosis.",
        *(f"**{name}.** {text}" for name, text in facts.items()),
        "Labels: 0 background, 1 LV cavity, 2 myocardium, 3 RV cavity. Intensities lie in [−1, 1]. `patients.csv` lists "
        "the files; what the system was not given is unknown or empty there. The folder is a data set of this study "
        "(layout `folder`), and of nnU-Net once it is named `DatasetNNN_Name`. There ED and ES are two cases: keep both "
        "on one side of a split."]) + "\n"


def _listed(rows: Sequence[Mapping[str, Any]]) -> str:
    """The headline metrics among `rows`, one line each."""
    found = {row["metric"]: row["value"] for row in rows if row["value"] is not None}
    return "\n".join(["", *(f"- {label(name)}: {number(name, found[name])}" for name in headline(found))])


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a result table; what is not finite becomes null."""
    kept = rows[["axis", "metric", "value", "low", "high", "n", "seeds", "better", "floor", "ceiling"]]
    return json_values(kept.to_dict("records"))
