"""A page on the privacy of one system, for whoever decides whether its samples may leave the house, and the
same as JSON.

The page says what was attacked, with what power, what was found and what remains. It promises nothing: that
an attack fails says that this attack, with this power, on these patients failed. An audit whose controls
failed says so in its first line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmri_lib.config.study import Study
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.privacy.attack import fpr_note
from cmri_lib.reporting.claims import LEVEL, evidence, holm
from cmri_lib.reporting.privacy_metrics import ATTACKS
from cmri_lib.reporting.results import json_values
from cmri_lib.systems.system import file_name

#: Share of the members that dataset inference names who may be strangers.
FALSE_NAMES = 0.05
TEMPLATE = """# Privacy of {system}

Cohort {dataset}, profile {profile}. **{headline}**

## What was attacked

{members} patients the system has learnt from were to be told from {nonmembers} it has never seen,
{slices_each} slices of each, by {count} attacks. Settings of attacks were chosen on other patients than
those that were scored. {samples} samples were searched for copies of training slices.{trainings_note}

## With what power

{power}

## What was found

| attack | AUC (0.5: guessing) | 95 % interval | found at 1 % false alarms | AUC on overfitted twin | between strangers |
|---|---|---|---|---|---|
{table}

*Overfitted twin*: the same system, trained until it knows a few patients by heart; an attack that does not find them has no
power. *Between strangers*: the AUC between two halves of the patients it has never seen, which is 0.5 but for chance.

- {rate_note}.
- {finding}
- {copies}

## What remains

{remains}
"""


def page(facts: Mapping[str, Any]) -> str:
    """The page, in Markdown, of `experiments.privacy_audit.facts`."""
    attacks = sorted(facts["attacks"], key=lambda row: -row["auc"])
    table = "\n".join(f"| {_name(row['attack'])} | {row['auc']:.2f} | {row['low']:.2f} to {row['high']:.2f} | "
                      f"{row['tpr1']:.0%} | {'not run' if row['control'] is None else format(row['control'], '.2f')} | "
                      f"{row['null']:.2f} |"
                      for row in attacks)
    rate, low, high, floor = facts["near_copies"]
    copies = (f"{facts['suspects']} of {facts['samples']} samples lie nearer to a training slice than {1 - floor:.0%} of "
              f"slices of strangers do: {rate:.1%} [{low:.1%}, {high:.1%}], where {floor:.0%} is chance. Above the share "
              f"that is as near to strangers: {facts['near_copy_excess'][0]:+.1%} "
              f"[{facts['near_copy_excess'][1]:+.1%}, {facts['near_copy_excess'][2]:+.1%}].")
    return TEMPLATE.format(**{**facts, "headline": headline(facts), "count": len(attacks),
                              "power": _power(facts), "table": table,
                              "trainings_note": _trainings_note(facts),
                              "rate_note": fpr_note(facts["nonmembers"], 0.01), "copies": copies,
                              "finding": _finding(facts), "remains": _remains(facts)})


def headline(facts: Mapping[str, Any]) -> str:
    """One sentence: broken, leaking, or what was not found. An attack counts if it stands among all that were tried."""
    if facts["verdict"] != "sound":
        return f"This audit is {_in_words(str(facts['verdict']))}. Nothing below says that the system is private."
    leaks, alone = _above_guessing(facts["attacks"])
    copying = facts["near_copy_excess"][1] > 0
    if leaks or copying:
        found = [f"{_strongest(leaks)} tells members from strangers"] if leaks else []
        return f"The system leaks: {' and '.join([*found, *(['it hands out near copies'] if copying else [])])}."
    if alone:
        return (f"Alone {_strongest(alone)} would tell members from strangers, but of so many attacks one may by chance; "
                "no more near copies than chance were found.")
    return "No attack with power told members from strangers, and no more near copies than chance were found."


def _above_guessing(attacks: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Of the attacks with power those that do better than guessing after Holm's correction for their number, and those whose
    own interval says so."""
    able = [row for row in attacks if row["power"]]
    # JSON has no infinity, which the degrees of freedom of a single training are.
    scores = [Score(row["auc"], row["low"], row["high"], 0, df=row.get("df") or math.inf) for row in able]
    tails = [evidence(score, "above", 0.5)[0] for score in scores]
    sure = holm(2 * np.array(tails)) < LEVEL
    return [row for row, one in zip(able, sure) if one], [row for row in able if row["low"] > 0.5]


def _strongest(attacks: Sequence[Mapping[str, Any]]) -> str:
    return _name(max(attacks, key=lambda row: row["auc"])["attack"])


def _trainings_note(facts: Mapping[str, Any]) -> str:
    if facts["trainings"] == 1:
        return ""
    return (f"\n\nThe system was trained {facts['trainings']} times, with other first weights and batches. The AUCs below are\n"
            "means over these trainings, and intervals cover them. Names and samples are of the first.")


def _finding(facts: Mapping[str, Any]) -> str:
    most = max(facts["attacks"], key=lambda row: row["tpr1"])
    members, strangers = facts["members"], facts["nonmembers"]
    lines = [f"At 1 % false alarms {_name(most['attack'])} finds most members: {most['tpr1'] * members:.0f} of {members}."]
    if strangers + 1 < 1 / FALSE_NAMES:
        lines.append(f"Among {strangers} strangers nobody stands out enough to be named beyond doubt, whatever a system gives "
                     "away.")
    elif facts["named"] is not None:  # of an audit whose patients' scores were kept
        lines.append(f"With {_name(facts['strongest'])}, which sets the control's members furthest apart, {facts['named']} of "
                     f"{members} members can be named, if {FALSE_NAMES:.0%} of the names may be false.")
    return " ".join(lines)


def _power(facts: Mapping[str, Any]) -> str:
    weak = [_name(row["attack"]) for row in facts["attacks"] if not row["power"]]
    control = max((row["control"] for row in facts["attacks"] if row["control"] is not None),
                  default=float("nan"))
    lines = [f"On the same system overfitted on few slices the strongest attack reaches an AUC of {control:.2f}.",
             f"Without asking any system, members are told from strangers with an AUC of {facts['blind']:.2f}.",
             "Of copies planted among samples were found: "
             + ", ".join(f"{kind} {share:.0%}" for kind, share in facts["planted"].items()) + "."]
    if weak:
        lines.append(f"Without power, because they do not even find the control: {', '.join(weak)}.")
    return " ".join(lines)


def _remains(facts: Mapping[str, Any]) -> str:
    lines = ["An attack that nobody has thought of yet is not in this table.",
             f"An effect smaller than {facts['nonmembers']} strangers can show may be there.",
             "Attacks on weights say what publishing weights would risk; whoever publishes samples alone reads the attacks "
             "on samples.",
             "No differential privacy was applied, so there is no bound on what could be inferred."]
    return "\n".join(f"- {line}" for line in lines)


def _in_words(text: str) -> str:
    """The text with attacks under their full names."""
    return re.sub(rf"\b({'|'.join(sorted(ATTACKS, key=len, reverse=True))})\b",
                  lambda found: ATTACKS[found[0]], text)


def _name(attack: str) -> str:
    return ATTACKS.get(attack, attack)


def write(study: Study, facts: Mapping[str, Any]) -> Path:
    """Write ``results/<dataset>/privacy/<system>.md`` and ``.json``; returns the page's path."""
    file = study.results / "privacy" / f"{file_name(str(facts['system']))}.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page(facts), encoding="utf-8")
    file.with_suffix(".json").write_text(json.dumps(json_values(facts), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return file
