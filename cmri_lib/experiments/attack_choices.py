"""What an audit chooses, and how much the choice matters: the settings of an attack, and what an attacker has access to.

Everything is computed from scores that the audit has anyway. No network is asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from cmri_lib.experiments.privacy_audit import PrivacyAudit
from cmri_lib.privacy.attack import PatientScores, auc, auc_difference, membership_scores, score_of
from cmri_lib.privacy.attacks.best_of import BestOf, attack_of
from cmri_lib.privacy.setting_scores import ALL, by_setting
from cmri_lib.reporting.privacy_metrics import ATTACKS
from cmri_lib.systems.system import Run

#: What an attacker has, and what the first is worth beyond the second.
WEIGHTS, SAMPLES, MORE = "weights", "samples alone", "weights − samples alone"


def settings_table(audit: PrivacyAudit, runs: Sequence[Run], attack: str) -> pd.DataFrame:
    """The AUC of every setting of one attack (`privacy.setting_scores.by_setting`), for every training of each run.

    Returns:
        columns: system; training, from 1; those of `by_setting`. Runs that the attack does not suit have no rows.
    """
    chosen = next(a for a in audit.attacks if a.name == attack)
    parts = [by_setting(chosen, audit.target(one), audit.sides(one), seed=audit.study.seed).assign(system=run.id, training=k)
             for run in runs for k, one in enumerate(audit.trainings(run), 1) if chosen.suits(audit.target(one))]
    columns = ["system", "training", "setting", "half", "value", "n", "picked", "used"]
    return pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)


def settings_summary(audit: PrivacyAudit, runs: Sequence[Run], attack: str) -> pd.DataFrame:
    """How far the AUCs of all settings lie apart over all patients, beside the audited one, whose settings were chosen on other
    patients. The best of all settings has been picked by looking at the answer, so it flatters the attack.

    Returns:
        a row for each (system, training) of `settings_table`; four columns of AUCs.
    """
    table = settings_table(audit, runs, attack)
    groups = table[table["half"] == ALL].groupby(["system", "training"], sort=False)["value"]
    audited = {(run.id, k): auc(one.members, one.nonmembers) for run in runs if run.id in set(table["system"])
               for k, one in enumerate(audit.by_patient(run, attack), 1)}
    return pd.DataFrame({"settings chosen on other patients": audited, "best setting of all": groups.max(),
                         "median setting": groups.median(), "worst setting": groups.min()}).loc[list(audited)]


def best_by_access(audit: PrivacyAudit, run: Run) -> dict[str, list[PatientScores]]:
    """`WEIGHTS`, `SAMPLES` → scores of the best attack with this access, of each training, on the same patients. Whoever has
    weights can draw samples, and so has every attack. Attack and setting are chosen for each half of the patients on the other
    half."""
    targets = [audit.target(one) for one in audit.trainings(run)]
    without = {WEIGHTS: {}, SAMPLES: {"generator": None}}
    groups = {access: tuple(a for a in audit.attacks if a.suits(replace(targets[0], **gone)))
              for access, gone in without.items()}
    sides = audit.sides(run)
    return {access: [membership_scores(BestOf(attacks, access), target, sides, seed=audit.study.seed)["mean"]
                     for target in targets] for access, attacks in groups.items() if attacks}


def access_table(audit: PrivacyAudit, runs: Sequence[Run]) -> pd.DataFrame:
    """AUC of the best attack on weights, of the best on samples alone, and the difference, paired over patients and trainings.

    Returns:
        columns: system, access (`WEIGHTS`, `SAMPLES`, `MORE`), value, low, high, n, seeds; chosen, names of the attacks that
        were best for some half of the patients of some training.
    """
    rows = []
    for run in runs:
        found = best_by_access(audit, run)
        scores = {access: score_of(each, **audit.options).within(0.0, 1.0) for access, each in found.items()}
        if len(found) == 2:
            scores[MORE] = auc_difference(found[WEIGHTS], found[SAMPLES], **audit.options)
        chosen = {access: dict.fromkeys(ATTACKS[attack_of(s)] for one in each for s in one.chosen)
                  for access, each in found.items()}
        rows += [{"system": run.id, "access": access, "value": s.value, "low": s.low, "high": s.high, "n": s.n,
                  "seeds": s.seeds, "chosen": "; ".join(chosen.get(access, ()))} for access, s in scores.items()]
    return pd.DataFrame(rows, columns=["system", "access", "value", "low", "high", "n", "seeds", "chosen"])
