"""What an audit chooses, and how much the choice matters: the settings of an attack, and what an attacker has access to.

Everything is computed from scores that the audit has anyway. No network is asked again.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cmri_lib.experiments.privacy_audit import PrivacyAudit
from cmri_lib.privacy.attack import auc
from cmri_lib.privacy.setting_scores import ALL, by_setting
from cmri_lib.systems.system import Run


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
