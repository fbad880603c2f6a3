"""Controls of an audit: what it must find, what it must not, and what it would find without asking the
generator.

An attack that fails says nothing until it has succeeded where there is something to be found. So every audit
has

- a **positive control**: a generator overfitted on few patients, and copies planted among samples, exact and
  disguised;
- a **null**: two halves of hold-out patients, whom nobody has learnt from, told apart by the same attacks;
- a **blind baseline**: a classifier of members and non-members that never asks the generator. If it
  succeeds, the two sides
  differ in other ways (vendors, centres, diseases), and so would any attack.

An audit that misses a control is reported as broken (`verdict`), never as "private".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import ParameterError
from cmri_lib.measures.instruments.learned_features import Features
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.privacy.attack import PatientScores, Sides, halves

#: What a sound audit reaches: AUC of its strongest attack on the positive control; recall of planted copies.
LEAST_AUC, LEAST_EXACT, LEAST_DISGUISED = 0.95, 0.95, 0.90
#: Folds of the blind baseline.
FOLDS = 5
EXACT = "exact"


def _moved(images: Tensor, degrees: float = 0.0, down: float = 0.0, right: float = 0.0) -> Tensor:
    """Turned about the middle, and shifted by pixels."""
    angle, side = np.deg2rad(degrees), images.shape[-1]
    matrix = [[np.cos(angle), -np.sin(angle), -2 * right / side],
              [np.sin(angle), np.cos(angle), -2 * down / side]]
    grid = F.affine_grid(torch.tensor([matrix]).to(images).expand(len(images), 2, 3), list(images.shape),
                         align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _bent(images: Tensor, exponent: float) -> Tensor:
    return 2 * ((images + 1) / 2).clamp(0, 1) ** exponent - 1


def _noisy(images: Tensor, spread: float) -> Tensor:
    return images + spread * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))


def _blurred(images: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


#: Disguises of planted copies; shifts are pixels of 64, and scale with the image.
DISGUISES: Mapping[str, Callable[[Tensor], Tensor]] = {
    EXACT: lambda x: x,
    "shift of 1 pixel": lambda x: _moved(x, down=x.shape[-1] / 64),
    "shift of (3, 2) pixels": lambda x: _moved(x, down=3 * x.shape[-1] / 64, right=2 * x.shape[-1] / 64),
    "rotation by 3°": lambda x: _moved(x, degrees=3),
    "rotation by 10°": lambda x: _moved(x, degrees=10),
    "mirrored": lambda x: x.flip(-1),
    "gamma 1.4": lambda x: _bent(x, 1.4),
    "noise of 0.05": lambda x: _noisy(x, 0.05),
    "blur of 3 pixels": _blurred,
    "all but the mirror, slight": lambda x: _noisy(_bent(_moved(x, 3, x.shape[-1] / 64, x.shape[-1] / 64),
                                                         1.2), 0.03),
}


def planted_copies(training: Slices, disguise: str, count: int, seed: int = 0) -> Slices:
    """`count` training slices of different patients as far as there are so many, disguised, under names of
    synthetic patients.

    Raises:
        ParameterError: for an unknown disguise.
    """
    if disguise not in DISGUISES:
        raise ParameterError(f"{disguise!r}", field="disguise", remedy=f"choose among {list(DISGUISES)}")
    generator = np.random.default_rng(seed)
    order = pd.Series(training.patients)[generator.permutation(len(training))]
    chosen = order.groupby(order).cumcount().sort_values(kind="stable").index.to_numpy()  # each patient once, then again
    some = training.take(np.resize(chosen, count))
    images = DISGUISES[disguise](torch.from_numpy(some.images)).clamp(-1, 1).numpy().astype(np.float32)
    names = [f"synthetic-copy-{i:05d}" for i in range(count)]
    return Slices(images, np.zeros_like(some.masks),
                  some.table.assign(patient=names, scan=names, source=f"planted, {disguise}"))


def blind_scores(sides: Sides, space: Features, seed: int = 0) -> PatientScores:
    """Members against non-members by logistic regression on features of their images, patient by patient:
    the score of a patient comes from a classifier that has seen neither him or her nor the generator."""
    every = [side.patients for side in (sides.members, sides.nonmembers)]
    names = [np.unique(side) for side in every]
    patients, inside = np.concatenate(names), np.repeat([1, 0], [len(n) for n in names])
    rows = np.concatenate([space(side.images) for side in (sides.members, sides.nonmembers)])
    whose, found = np.concatenate(every), pd.Series(np.nan, index=patients)
    folds = StratifiedKFold(min(FOLDS, np.bincount(inside).min()), shuffle=True, random_state=seed)
    for learn, judge in folds.split(patients[:, None], inside):
        known = np.isin(whose, patients[learn])
        model = make_pipeline(StandardScaler(),
                              LogisticRegression(C=0.1, class_weight="balanced", max_iter=500))
        model.fit(rows[known], np.isin(whose[known], names[0]))
        here = np.isin(whose, patients[judge])
        logits = pd.Series(model.decision_function(rows[here])).groupby(whose[here]).mean()
        found[logits.index] = logits
    return PatientScores(found[names[0]].to_numpy(), found[names[1]].to_numpy(), *names, (space.name,))


def null_sides(holdout: Slices, seed: int = 0) -> Sides:
    """Hold-out patients in two halves, at random."""
    return Sides(*(holdout.where(patient=half) for half in halves(holdout.patients, seed)))


def separation(found: PatientScores) -> float:
    """Means of members and of non-members, apart in standard deviations within the sides (d′): it tells attacks apart that all
    have an AUC of 1. Infinite where scores do not vary within the sides."""
    apart, spread = found.members.mean() - found.nonmembers.mean(), np.sqrt((found.members.var() + found.nonmembers.var()) / 2)
    return float(apart / spread) if spread > 0 else float(np.copysign(np.inf, apart)) if apart else 0.0


@dataclass(frozen=True)
class Controls:
    """What the controls of an audit have shown.

    Attributes:
        positive: attack → AUC on the overfitted generator.
        null: attack → AUC between halves of the hold-out.
        blind: AUC of the blind baseline.
        copies: disguise → share of planted copies that was found.
        apart: attack → separation of members and others on the overfitted generator.
    """

    positive: Mapping[str, Score]
    null: Mapping[str, Score]
    blind: Score
    copies: Mapping[str, float] = field(default_factory=dict)
    apart: Mapping[str, float] = field(default_factory=dict)

    @property
    def strongest(self) -> str:
        """The attack that does best on the positive control; of several with the same AUC the one that sets members furthest
        apart."""
        return max(self.positive, key=lambda name: (self.positive[name].value, self.apart.get(name, 0.0)))

    def power(self, attack: str) -> bool:
        """Whether the attack catches the positive control at all: its interval lies above one half."""
        return attack in self.positive and self.positive[attack].low > 0.5

    def faults(self) -> list[str]:
        """What is broken, in words; empty if nothing is."""
        found = []
        if not self.positive:
            found.append("no positive control was run")
        elif (best := self.positive[self.strongest]).value < LEAST_AUC:
            found.append(f"the strongest attack, {self.strongest}, reaches an AUC of {best.value:.2f} on the overfitted "
                         f"generator, less than {LEAST_AUC:.2f}")
        # Of many intervals of 95 %, one in twenty misses: the strongest attack, chosen elsewhere, stands for
        # all.
        null = self.null.get(self.strongest) if self.positive else None
        if not np.isfinite([one.low for one in (null, self.blind) if one is not None]).all():
            found.append("too few patients for an interval of the null or of the blind baseline")
        elif null is not None and not null.low <= 0.5 <= null.high:
            found.append(f"{self.strongest} tells hold-out patients apart: AUC {null.value:.2f} "
                         f"[{null.low:.2f}, {null.high:.2f}]")
        if self.blind.low > 0.5:
            found.append(f"members differ from non-members without any generator: AUC {self.blind.value:.2f} "
                         f"[{self.blind.low:.2f}, {self.blind.high:.2f}]")
        for disguise, recall in self.copies.items():
            if recall < (least := LEAST_EXACT if disguise == EXACT else LEAST_DISGUISED):
                found.append(f"of copies planted with {disguise}, {recall:.0%} were found, less than {least:.0%}")
        return found

    def verdict(self) -> str:
        """"sound", or "broken: " and why."""
        faults = self.faults()
        return "broken: " + "; ".join(faults) if faults else "sound"
