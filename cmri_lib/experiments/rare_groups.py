"""Is a patient more exposed if few others have his or her disease (claim R2)? The same patients, attacked in two generators.

One has learnt from patients of whom few have these diseases, the other from as many patients, who have every disease equally
often (`privacy.groups.compositions`). All else is equal: the system, its steps, its first weights, the strangers. So a
difference is due to how rare the disease was, and to chance in the trainings, of which there are several pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cmri_lib.experiments.privacy_audit import PrivacyAudit
from cmri_lib.experiments.privacy_runs import few_slices, known_groups, rare_runs
from cmri_lib.measures.statistics.bootstrap import Score, weighted_mean
from cmri_lib.measures.statistics.seeds import bootstrap_seeds
from cmri_lib.privacy.attack import Attack, Sides
from cmri_lib.privacy.groups import exposure
from cmri_lib.reporting.results import with_system_columns
from cmri_lib.systems.system import Run

#: Names of the two kinds of training sets, in the order of `rare_runs`, and of what differs between them.
RARE, EVEN, CHANGE = "rare", "as common as others", "rare − common"
#: One attack on weights, and one on samples alone, which is what an audit of nearest neighbours sees.
MOUNTED = ("loss", "distance_pixel")


class RareGroups:
    """``groups.difference(attack)`` for each of ``groups.attacks``, ``groups.table()``, ``groups.rows()``.

    Args:
        audit: of the study; its attacks and its strangers are used.
    """

    def __init__(self, audit: PrivacyAudit):
        self.audit, self.runs = audit, rare_runs(audit.study, audit.slices)
        self.diseases = known_groups(audit.slices, "disease")
        self.strangers = audit.nonmembers.where(patient=sorted(self.diseases))
        self._asked: dict[tuple[str, str], tuple[pd.DataFrame, pd.DataFrame]] = {}
        self._scored: dict[tuple[str, str], Score] = {}

    @property
    def attacks(self) -> list[Attack]:
        """Those of `MOUNTED` that suit the system."""
        some = next(iter(self.runs.values()))[0]
        return [a for a in self.audit.attacks if a.name in MOUNTED and a.suits(self.audit.target(some))]

    def score(self, attack: Attack, which: str) -> Score:
        """Mean exposure of all watched patients (`privacy.groups.exposure`) where their diseases are `which`, `RARE` or `EVEN`,
        or its `CHANGE`; its interval is over patients, strangers and pairs of trainings. Scored once: table, rows and claims
        ask for the same ones."""
        if (key := (attack.name, which)) not in self._scored:
            sets = [*(np.array(one.watched) for one in self.runs), np.unique(self.strangers.patients)]
            each = [lambda *counts, k=k: weighted_mean(self._exposure(attack, k, which, counts[-1]), counts[k])
                    for k in range(len(self.runs))]
            self._scored[key] = bootstrap_seeds(each, *sets, n=sum(map(len, sets[:-1])), **self.audit.options)
        return self._scored[key]

    def difference(self, attack: Attack) -> Score:
        """Exposure where their diseases are rare minus that where they are not, of the same patients."""
        return self.score(attack, CHANGE)

    def table(self) -> pd.DataFrame:
        """attack, pair (from 1; "all": their mean, with an interval), disease (`EVEN`, `RARE`, `CHANGE`), value, low, high."""
        rows, once = [], np.ones(len(np.unique(self.strangers.patients)))
        for attack in self.attacks if self.runs else ():
            for which in (EVEN, RARE, CHANGE):
                score, found = self.score(attack, which), {"attack": attack.name, "disease": which}
                rows += [found | {"pair": str(pair + 1), "value": self._exposure(attack, pair, which, once).mean()}
                         for pair in range(len(self.runs))]
                rows.append(found | {"pair": "all", "value": score.value, "low": score.low, "high": score.high})
        return pd.DataFrame(rows, columns=["attack", "pair", "disease", "value", "low", "high"])

    def rows(self) -> list[dict[str, object]]:
        """Tidy rows of the exposure in both kinds of sets."""
        rows = []
        for which, k in ((RARE, 0), (EVEN, 1)):
            for attack in self.attacks if self.runs else ():
                run = next(iter(self.runs.values()))[k]
                score = self.score(attack, which).against(0.0, float("nan"))
                row = score.row(f"attack_exposure_{attack.name}", "privacy", "lower")
                rows += [one | {"system": f"{run.system.id}, disease {which}"} for one in with_system_columns(run, [row])]
        return rows

    def _exposure(self, attack: Attack, pair: int, which: str, weights: np.ndarray) -> np.ndarray:
        """(P,) of the watched patients of a pair, sorted by name; weights: of strangers, sorted by theirs."""
        if which == CHANGE:
            return self._exposure(attack, pair, RARE, weights) - self._exposure(attack, pair, EVEN, weights)
        composition, both = list(self.runs.items())[pair]
        members, strangers = self._scores(attack, both[which == EVEN], composition.watched)
        return exposure(members, strangers, self.diseases, weights).to_numpy()

    def _scores(self, attack: Attack, run: Run, watched: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
        if (key := (attack.name, run.folder)) not in self._asked:
            every, each = self.audit.training.where(patient=watched), self.audit.params.slices
            some = few_slices(every, len(watched), each, self.audit.study.seed)
            target, sides = self.audit.target(run), Sides(some, self.strangers)
            sides.check(target)
            self._asked[key] = tuple(attack.scores(target, side).groupby(side.patients).mean()
                                     for side in (sides.members, sides.nonmembers))
        return self._asked[key]
