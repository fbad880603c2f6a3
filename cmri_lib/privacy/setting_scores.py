"""What the AUC of an attack would be with each of its settings: how much the choice that `membership_scores` makes matters.

Patients fall into two halves. Each half is scored with the setting that suits the other best, so every setting has two AUCs:
one that may be looked at in order to choose, and one that is what the choice is worth.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cmri_lib.measures.statistics.bootstrap import MINIMUM
from cmri_lib.privacy.attack import Attack, Sides, Target, auc, halves, membership_scores

#: The two halves of the patients, and all of them together.
HALVES, ALL = ("first half", "second half"), "all"


def by_setting(attack: Attack, target: Target, sides: Sides, *, seed: int = 0) -> pd.DataFrame:
    """AUC of every setting alone, in both halves of the patients and in all of them.

    A patient's score is the mean over his or her slices. Halves and choices are those of `membership_scores` with this seed.

    Returns:
        columns: setting; half, one of `HALVES` or `ALL`; value, the AUC, NaN of fewer than `MINIMUM` patients on either side,
        for it would be the rank of single people; n, patients of the smaller side; picked: in this half
        the setting is the best, so the other half is scored with it; used: this half is scored with it.

    Raises:
        SplitError: if members have not been seen, or non-members have.
        DataError: if a score is not finite.
    """
    used = membership_scores(attack, target, sides, seed=seed)["mean"].chosen
    members, others = (attack.scores(target, side).groupby(side.patients).mean() for side in (sides.members, sides.nonmembers))
    parts = zip(halves(members.index, seed), halves(others.index, seed + 1))
    groups = {name: (members.loc[ours], others.loc[theirs]) for name, (ours, theirs) in zip(HALVES, parts)}
    choices = {HALVES[0]: (used[1], used[0]), HALVES[1]: used, ALL: (None, None)}
    return pd.DataFrame([
        {"setting": setting, "half": half, "value": auc(ours[setting], theirs[setting]) if fewest >= MINIMUM else np.nan,
         "n": fewest,
         "picked": setting == choices[half][0], "used": setting == choices[half][1]}
        for half, (ours, theirs) in {**groups, ALL: (members, others)}.items()
        for fewest in [min(len(ours), len(theirs))] for setting in members])
