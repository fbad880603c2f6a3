"""Range membership: an attacker who has a patient's slice not quite as it was learnt from, but moved, turned or windowed.

An attack on the very slice measures what a generator remembers. An attacker may hold another export of the same scan. What is
asked is then whether the generator has learnt from anything in a range around that slice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import ParameterError
from cmri_lib.privacy.attack import Attack, Target
from cmri_lib.privacy.controls import DISGUISES

#: Slight changes that leave a slice that of the same heart; none is the slice itself.
CHANGES = ("shift of 1 pixel", "rotation by 3°", "gamma 1.4")


@dataclass(frozen=True)
class RangeMembership(Attack):
    """The mean of an attack's scores over changed versions of a slice, which itself is never asked about (Tao & Shokri, "Range
    Membership Inference Attacks", SaTML 2025, arXiv 2408.05131; here the range is a few fixed changes, all of which count
    alike). Masks and all else stay.

    Args:
        attack: that scores each version.
        changes: of `controls.DISGUISES`.

    Raises:
        ParameterError: without a change, or for one that is not known.
    """

    attack: Attack
    changes: tuple[str, ...] = CHANGES

    def __post_init__(self) -> None:
        if not self.changes or set(self.changes) - set(DISGUISES):
            raise ParameterError(f"{self.changes}", field="changes", remedy=f"choose among {list(DISGUISES)}")

    @property
    def name(self) -> str:
        return f"range_{self.attack.name}"

    def suits(self, target: Target) -> bool:
        return self.attack.suits(target)

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        found = [self.attack.scores(target, changed(slices, change)) for change in self.changes]
        return sum(found[1:], found[0]) / len(found)


def changed(slices: Slices, change: str) -> Slices:
    """The slices with images (N, 1, H, W) changed by one of `controls.DISGUISES`, in [−1, 1]; all else stays."""
    images = DISGUISES[change](torch.from_numpy(slices.images)).clamp(-1, 1).numpy().astype(np.float32)
    return replace(slices, images=images)
