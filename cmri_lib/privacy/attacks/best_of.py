"""The best of several attacks, chosen before anyone is scored."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from cmri_lib.cohort.slices import Slices
from cmri_lib.privacy.attack import Attack, Target


@dataclass(frozen=True)
class BestOf(Attack):
    """All settings of all attacks that suit a target, as settings of one attack. `membership_scores` then chooses the attack as
    it chooses a setting: on other patients than those that it scores. The best of several attacks, picked after all have been
    scored, would be too good.

    Args:
        attacks: of any kind; their scales do not matter, see `membership_scores`.
        name: of all of them together, as it ends the name of a metric.
    """

    attacks: tuple[Attack, ...]
    name: str

    def suits(self, target: Target) -> bool:
        return any(attack.suits(target) for attack in self.attacks)

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        parts = {attack.name: attack.scores(target, slices) for attack in self.attacks if attack.suits(target)}
        return pd.concat([part.add_prefix(f"{name}: ") for name, part in parts.items()], axis=1)


def attack_of(setting: str) -> str:
    """The name of the attack that a setting of `BestOf` is one of."""
    return setting.split(": ", 1)[0]
