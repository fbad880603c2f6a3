"""Is a patient still recognised by a slice that is not quite the one that was learnt from?"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cmri_lib.experiments.privacy_audit import PrivacyAudit
from cmri_lib.privacy.attack import Attack, membership_scores, score_of
from cmri_lib.privacy.attacks.denoising_error import Fluctuation
from cmri_lib.privacy.attacks.range_membership import CHANGES, RangeMembership
from cmri_lib.systems.system import Run

#: The slice itself, and all changed versions together.
EXACT, RANGE = "the slice itself", "mean over the changes"
#: The attack on samples alone.
ON_SAMPLES = "distance_pixel"


def base_attacks(audit: PrivacyAudit, run: Run) -> list[Attack]:
    """The plain attack on weights of the run's family, the one that PFAMI is made of, and an attack on samples alone. Scores of
    the former's exact slices are known already."""
    target = audit.target(run)
    plain = [a.attack for a in audit.attacks if isinstance(a, Fluctuation) and a.suits(target)]
    return plain + [a for a in audit.attacks if a.name == ON_SAMPLES and a.suits(target)]


def versions_table(audit: PrivacyAudit, runs: Sequence[Run]) -> pd.DataFrame:
    """AUC of `base_attacks` on the slices themselves, on each change of them, and by the mean score of all changes. Members and
    non-members are changed alike.

    Returns:
        columns: system, attack, version (`EXACT`, those of `CHANGES`, `RANGE`), value, low, high, n.
    """
    rows = []
    for run in runs:
        for base in base_attacks(audit, run):
            attacks = {EXACT: base, **{change: RangeMembership(base, (change,)) for change in CHANGES},
                       RANGE: RangeMembership(base)}
            for version, attack in attacks.items():
                found = membership_scores(attack, audit.target(run), audit.sides(run), seed=audit.study.seed)["mean"]
                score = score_of(found, **audit.options).within(0.0, 1.0)
                rows.append({"system": run.id, "attack": base.name, "version": version, "value": score.value, "low": score.low,
                             "high": score.high, "n": score.n})
    return pd.DataFrame(rows, columns=["system", "attack", "version", "value", "low", "high", "n"])
