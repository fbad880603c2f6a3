"""Who is exposed: the same attack, scored for the patients of one group alone, of one disease or one scanner say.

An AUC over all patients can hide that a few are named with certainty. Those few may have something in common: a rare disease
(claim R2), or a scanner whose traits a generator has learnt (claim R4). Members of a group are compared with non-members of the
same group, so that what the group has in common tells nobody apart.

Kulynych, Yaghini, Cherubin, Veale & Troncoso, "Disparate Vulnerability to Membership Inference Attacks", PoPETs 2022.

Groups differ in more than their size: one disease may be easier to recognise than another. So that size alone tells, the same
patients are attacked twice (`compositions`): in a generator whose training patients hold few of their group, and in one whose
training patients hold as many of every group. How far they stand out among strangers of their group, each time, is `exposure`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from cmri_lib.errors import DataError
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.statistics.seeds import bootstrap_seeds
from cmri_lib.privacy.attack import PatientScores, auc


def within(found: Sequence[PatientScores], groups: Mapping[str, str]) -> dict[str, list[PatientScores]]:
    """Group → the scores of its members and of its non-members in every training, settings as they were chosen over all
    patients.

    Args:
        found: of one or several trainings of a system, which were attacked with the same patients.
        groups: patient → group. Who is in none is left out, and so is a group without patients on either side.
    """
    sides = [np.array([groups.get(name) or "" for name in names], dtype=object)
             for names in (found[0].member_names, found[0].nonmember_names)]
    parts = {}
    for group in sorted(set(sides[0]) & set(sides[1]) - {""}):
        ours, theirs = (side == group for side in sides)
        parts[group] = [PatientScores(one.members[ours], one.nonmembers[theirs], one.member_names[ours],
                                      one.nonmember_names[theirs], one.chosen) for one in found]
    return parts


def against_others(parts: Mapping[str, Sequence[PatientScores]], group: str, **options: object) -> Score:
    """AUC in one group of `within` minus the mean of the AUCs in the others; its interval is over the patients of all, and over
    trainings where there are several."""
    order = [parts[group], *(part for name, part in parts.items() if name != group)]
    names = [side for part in order for side in (part[0].member_names, part[0].nonmember_names)]

    def difference(training: int, *counts: np.ndarray) -> float:
        ours, *others = (auc(part[training].members, part[training].nonmembers, *counts[2 * k:2 * k + 2])
                         for k, part in enumerate(order))
        return ours - float(np.mean(others))

    return bootstrap_seeds([partial(difference, k) for k in range(len(order[0]))], *names, **options)


@dataclass(frozen=True)
class Composition:
    """Two sets of as many patients to learn from, which share those who are `watched`: in `rare` there are no others of their
    groups, in `even` all groups are of one size."""

    rare: tuple[str, ...]
    even: tuple[str, ...]
    watched: tuple[str, ...]


def compositions(groups: Mapping[str, str], pairs: int, few: int, seed: int = 0) -> list[Composition]:
    """`pairs` compositions, each with other patients to watch: `few` of every group but two, in turn (of two or three groups,
    of one alone). The sets are as large as the smallest group allows.

    Args:
        groups: patient → group, of all who may be learnt from.

    Raises:
        DataError: if there are fewer than two groups, or too few patients in one.
    """
    generator, names = np.random.default_rng(seed), np.array(sorted(groups))
    kinds = sorted(set(groups.values()))
    if len(kinds) < 2:
        raise DataError(f"{len(kinds)} groups of patients", field="groups", remedy="one can be rare only beside others")
    queues = {kind: generator.permutation([name for name in names if groups[name] == kind]).tolist() for kind in kinds}
    rare_at_once, least = max(1, len(kinds) - 2), min(map(len, queues.values()))
    common_at_once = len(kinds) - rare_at_once
    each = (rare_at_once * few + common_at_once * least) // len(kinds)
    # In an even set a group has at least one patient more than a rare one; who is watched is so once, over all pairs.
    needed = max(few + math.ceil(len(kinds) / common_at_once), math.ceil(pairs * rare_at_once / len(kinds)) * few)
    if least < needed:
        raise DataError(f"{least} patients in the smallest of {len(kinds)} groups", field="groups",
                        remedy=f"{pairs} pairs with {few} patients of a rare group take at least {needed}")
    found = []
    for pair in range(pairs):
        rare_kinds = [kinds[(pair * rare_at_once + k) % len(kinds)] for k in range(rare_at_once)]
        common = [kind for kind in kinds if kind not in rare_kinds]
        watched = [name for kind in rare_kinds for name in queues[kind][:few]]
        even = [name for kind in kinds for name in queues[kind][:each]]
        shares = np.array_split(np.arange(len(even) - len(watched)), len(common))
        rare = watched + [name for kind, share in zip(common, shares) for name in queues[kind][:len(share)]]
        found.append(Composition(*(tuple(sorted(some)) for some in (rare, even, watched))))
        for kind in rare_kinds:  # who was watched goes to the end of the queue
            queues[kind] = queues[kind][few:] + queues[kind][:few]
    return found


def exposure(members: pd.DataFrame, strangers: pd.DataFrame, groups: Mapping[str, str], weights: np.ndarray | None = None
             ) -> pd.Series:
    """How far each member's score lies above the mean of strangers of the same group, in standard deviations of all strangers
    about the means of their groups; the mean over settings.

    Args:
        members, strangers: (P, settings) scores, higher for likelier members, with patients as their index.
        groups: patient → group.
        weights: how often each stranger counts in these means, once by default. The standard deviation is the unit in which
            scores are told; it stays that of all, each once.

    Returns:
        (P,) by member; NaN without strangers of the same group.
    """
    ours, theirs = (np.array([groups[name] for name in side.index]) for side in (members, strangers))
    rows, values, kinds = strangers.to_numpy(float), members.to_numpy(float).copy(), sorted({*ours, *theirs})
    squares = sum(((rows[theirs == kind] - rows[theirs == kind].mean(axis=0)) ** 2).sum(axis=0) for kind in set(theirs))
    spread = np.sqrt(squares / (len(rows) - len(set(theirs))))
    counts = np.ones(len(rows)) if weights is None else np.asarray(weights, float)
    for kind in kinds:
        here = theirs == kind
        values[ours == kind] -= counts[here] @ rows[here] / counts[here].sum() if counts[here].any() else np.nan
    return pd.Series((values / spread).mean(axis=1), index=members.index)
