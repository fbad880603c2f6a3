"""Who is exposed: the same attack, scored for the patients of one group alone, of one disease or one scanner say.

An AUC over all patients can hide that a few are named with certainty. Those few may have something in common: a rare disease
(claim R2), or a scanner whose traits a generator has learnt (claim R4). Members of a group are compared with non-members of the
same group, so that what the group has in common tells nobody apart.

Kulynych, Yaghini, Cherubin, Veale & Troncoso, "Disparate Vulnerability to Membership Inference Attacks", PoPETs 2022.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cmri_lib.privacy.attack import PatientScores


def within(found: PatientScores, groups: Mapping[str, str]) -> dict[str, PatientScores]:
    """Group → the scores of its members and of its non-members, settings as they were chosen over all patients.

    Args:
        groups: patient → group. Who is in none is left out, and so is a group without patients on either side.
    """
    sides = [np.array([groups.get(name) or "" for name in names], dtype=object)
             for names in (found.member_names, found.nonmember_names)]
    parts = {}
    for group in sorted(set(sides[0]) & set(sides[1]) - {""}):
        ours, theirs = (side == group for side in sides)
        parts[group] = PatientScores(found.members[ours], found.nonmembers[theirs], found.member_names[ours],
                                     found.nonmember_names[theirs], found.chosen)
    return parts
