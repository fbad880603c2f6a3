"""Sections of the report on anybody's samples: copies, members, what they teach, and what they have cost. Each in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from cmri_lib.experiments.own_generator import Copies, Judgement
from cmri_lib.experiments.sample_attacks import Membership
from cmri_lib.experiments.sample_utility import Utility
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.privacy.controls import EXACT, LEAST_DISGUISED, LEAST_EXACT
from cmri_lib.privacy.copies import RATE
from cmri_lib.reporting import metrics
from cmri_lib.reporting.metric_description import SPACES
from cmri_lib.reporting.privacy_metrics import ATTACKS
from cmri_lib.reporting.readme import markdown

#: Name of the copy detector's space.
DETECTOR = "copy"


def sections(found: Judgement) -> str:
    """All that apply, each below its heading."""
    parts = {"Copies of training slices": copies(found.copies, len(found.samples)),
             "Who was learnt from?": membership(found.membership), "What do they teach?": utility(found.utility),
             "What have they cost?": cost(found.cost)}
    return "\n\n".join(f"## {heading}\n\n{text}" for heading, text in parts.items() if text)


def copies(found: Copies | None, samples: int) -> str:
    """What was found, and what would have been: planted copies are the control of the search."""
    if found is None:
        return "Not searched for; see below."
    lost = [name for name, share in found.planted.items() if share < (LEAST_EXACT if name == EXACT else LEAST_DISGUISED)]
    power = "The search finds planted copies of every kind." if not lost else (
        f"**The search misses planted copies** of these kinds, and says nothing about them: {', '.join(lost)}.")
    where = " or ".join(f"in {SPACES[name][0]}" if name in SPACES else f"in the space {name}" for name in found.spaces)
    untrained = "" if DETECTOR in found.spaces else (" No copy detector is trained on this cohort; notebook 11 trains one, "
                                                     "which sees through more disguises.")
    suspects = (f"{len(found.suspects)} of {samples} samples lie nearer to a training slice than {1 - RATE:.0%} of strangers' "
                f"slices do, {where}; by chance {RATE:.0%} do in each.{untrained}")
    return f"{suspects} {power}\n\n{_shares(found.planted)}"


def membership(found: Membership | None) -> str:
    """AUCs of the attacks beside those of their controls; nothing where nobody was attacked."""
    if found is None:
        return ""
    table = pd.DataFrame([{"attack": ATTACKS.get(one.attack, one.attack), "your samples": _shown(one.found),
                           "planted copies of members": _shown(one.planted), "hold-out against hold-out": _shown(one.null)}
                          for one in found.attacks])
    best = found.strongest
    answer = ("**The audit is broken, so it says nothing of members**" if found.faults() else
              "**Members are recognised from the samples alone**" if found.exposed else
              "Members are not seen to be recognised from the samples alone")
    return (f"{answer}: the attack that is strongest on planted copies ({ATTACKS.get(best.attack, best.attack)}) ranks one of "
            f"{found.members} patients who were learnt from above one of {found.strangers} hold-out patients with a chance of "
            f"{_shown(best.found)}; guessing has 0.5. The audit is {found.verdict()}.\n\n{markdown(table)}\n\nAUC by the mean "
            "over a patient's slices, with its 95 % interval over patients. An attacker who has weights may find more.")


def utility(found: Utility | None) -> str:
    """What the student of samples scores on real patients beside that of real slices; nothing if it was not asked."""
    if found is None:
        return ""
    rows = pd.DataFrame(found.rows)
    table = pd.DataFrame([{"on real test patients": metrics.label(row.metric), "taught by samples": metrics.with_interval(row),
                           "by as many real slices": metrics.number(row.metric, row.ceiling)}
                          for row in rows[rows["ceiling"].notna()].itertuples()])
    gap = found.difference
    return (f"A segmenter was trained on {found.slices} samples and their masks alone, and another, for as many steps, on as "
            f"many real slices of training patients. Dice of the first minus that of the second, on {found.patients} test "
            f"patients: {gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] (one training of each; the interval is over "
            f"patients).\n\n{markdown(table)}")


def cost(stated: Mapping[str, float | str]) -> str:
    """A table of what is stated; nothing where nothing is."""
    if not stated:
        return ""
    table = pd.DataFrame([{"cost": metrics.label(key) if metrics.known(key) else key,
                           "stated": value if isinstance(value, str) else metrics.number(key, value)}
                          for key, value in stated.items()])
    return f"As their maker states it; nothing of this is measured here.\n\n{markdown(table)}"


def _shares(planted: Mapping[str, float]) -> str:
    return markdown(pd.DataFrame([{"planted": name, "found": f"{share:.0%}"} for name, share in planted.items()]))


def _shown(score: Score) -> str:
    return f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"
