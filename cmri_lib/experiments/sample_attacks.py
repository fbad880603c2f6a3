"""Whom has a generator learnt from? Attacks on anybody's samples alone, as an attacker mounts them who has neither weights nor
code (a full black box).

Members are the patients that the samples' maker names, non-members hold-out patients, from whom nothing has learnt;
validation patients are the reference of the density ratio. No attack sees through a network that has learnt from members. As in
`experiments.privacy_audit` there are a null, hold-out against hold-out, and a blind baseline, which asks no samples. An
overfitted twin of somebody else's generator cannot be trained, so the positive control is planted: as many copies of members'
slices in the place of the samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.experiments.privacy_audit import BLIND, NULL
from cmri_lib.experiments.privacy_runs import few_slices
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.measures.statistics.bootstrap import MINIMUM, Score
from cmri_lib.privacy.attack import (Attack, PatientScores, Remembered, Sides, Target, attack_rows, membership_scores,
                                     score_of)
from cmri_lib.privacy.attacks.samples_only import DensityRatio, NearestSamples
from cmri_lib.privacy.controls import EXACT, LEAST_AUC, blind_scores, null_sides, planted_copies, separation
from cmri_lib.privacy.nearest_neighbours import Pixels
from cmri_lib.reporting.results import Named, with_system_columns

#: Patients on either side: with fewer, a half of the null has no interval.
FEWEST = 2 * MINIMUM
#: What the rows of the positive control are called.
PLANTED = "planted: copies of members"


@dataclass(frozen=True)
class Attacked:
    """One attack, by the mean over a patient's slices as in every audit of the study.

    Attributes:
        found, planted, null: its AUC on the samples, on planted copies of members, and between halves of the hold-out.
        apart: separation of members and others on the planted copies, in standard deviations.
    """

    attack: str
    found: Score
    planted: Score
    null: Score
    apart: float


@dataclass(frozen=True)
class Membership:
    """What the attacks have found.

    Attributes:
        members, strangers: patients on either side.
        attacks: in the order of tables.
        blind: AUC of the blind baseline.
        rows: tidy rows of the attacks on the samples, and of the controls under names of their own.
    """

    members: int
    strangers: int
    attacks: tuple[Attacked, ...]
    blind: Score
    rows: tuple[dict[str, object], ...]

    @property
    def strongest(self) -> Attacked:
        """What does best on the planted copies, so that it is not chosen by what it says of the samples."""
        return max(self.attacks, key=lambda one: (one.planted.value, one.apart))

    @property
    def exposed(self) -> bool:
        """Whether that attack tells members from strangers, its interval above one half, in an audit that is sound."""
        return self.strongest.found.low > 0.5 and not self.faults()

    def faults(self) -> list[str]:
        """What is broken in the audit, in words; empty if nothing is."""
        best, found = self.strongest, []
        if best.planted.value < LEAST_AUC:
            found.append(f"the strongest attack reaches an AUC of {best.planted.value:.2f} on planted copies of members, less "
                         f"than {LEAST_AUC:.2f}: these are too few samples to find members by")
        if not best.null.low <= 0.5 <= best.null.high:
            found.append(f"it tells halves of the hold-out apart: AUC {_interval(best.null)}")
        if self.blind.low > 0.5:
            found.append(f"members differ from strangers without any samples, perhaps by vendor or disease: AUC "
                         f"{_interval(self.blind)}")
        return found

    def verdict(self) -> str:
        """"sound", or "broken: " and why."""
        faults = self.faults()
        return "broken: " + "; ".join(faults) if faults else "sound"


def infer_members(study: Study, of: Named, samples: Slices, members: Slices, cohort: Slices) -> Membership:
    """Attack `samples`.

    Args:
        of: whose the rows are.
        members: slices of the patients whom the generator has learnt from.
        cohort: slices of hold-out patients, who are the strangers, and of validation patients, the reference of the density
            ratio; others in it are not looked at.

    Raises:
        DataError: if there are fewer than `FEWEST` members or strangers.
        SplitError: if a patient is member and stranger, or member and reference.
    """
    holdout, reference = (cohort.where(split=split) for split in ("holdout", "validation"))
    for field, side in (("trained-on", members), ("holdout", holdout)):
        if (count := len(np.unique(side.patients))) < FEWEST:
            raise DataError(f"{count} {'members' if side is members else 'hold-out patients whom it has not learnt from'}, and "
                            f"attacks take {FEWEST}", field=field, remedy="name more patients, or take a larger cohort")
    params, seed, options = study.params.privacy, study.seed, {"seed": study.seed, "resamples": study.params.fidelity.resamples}
    sides = Sides(*(few_slices(side, params.patients, params.slices, seed) for side in (members, holdout)))
    halves = null_sides(few_slices(holdout, len(holdout), params.slices, seed), seed)
    seen = frozenset(members.patients)
    ours = Target(of.id, seen, samples=samples)
    copies = Target(f"{of.id}, {PLANTED}", seen, samples=planted_copies(sides.members, EXACT, len(samples), seed))
    attacks = _attacks(reference)
    found, planted = (_scores(attacks, target, sides, seed) for target in (ours, copies))
    null = _scores(attacks, ours, halves, seed, null=True)
    told = tuple(Attacked(name, *(score_of(one[name]["mean"], **options).within(0, 1) for one in (found, planted, null)),
                          separation(planted[name]["mean"])) for name in found)
    blind = score_of(blind_scores(sides, ClassicalFeatures(), seed), **options).within(0, 1)
    named = [(of.id, found), (copies.name, planted), (f"{of.id}, {NULL}", null)]
    rows = [_of(of, name, row) for name, scores in named for attack, one in scores.items()
            for row in attack_rows(attack, [one], **options)]
    rows.append(_of(of, f"{of.id}, {BLIND}", blind.against(0.5, 1).row("attack_auc_blind", "privacy", "lower")))
    counts = (len(np.unique(side.patients)) for side in (sides.members, sides.nonmembers))
    return Membership(*counts, told, blind, tuple(rows))


def _attacks(reference: Slices) -> list[Attack]:
    """Those of `PrivacyAudit` that need samples alone; the density ratio where somebody is left to be its reference."""
    unlearnt = Cached(ClassicalFeatures())
    nearest = [Remembered(NearestSamples(space)) for space in (Cached(Pixels()), unlearnt)]
    return nearest + ([DensityRatio(unlearnt, reference)] if len(reference) else [])


def _scores(attacks: list[Attack], target: Target, sides: Sides, seed: int, null: bool = False
            ) -> Mapping[str, dict[str, PatientScores]]:
    return {one.name: membership_scores(one, target, sides, seed=seed, null=null) for one in attacks if one.suits(target)}


def _of(of: Named, name: str, row: dict[str, object]) -> dict[str, object]:
    """The row under the name of a control, its interval within the scale of shares."""
    return with_system_columns(of, [row])[0] | {"system": name, "low": max(row["low"], 0.0), "high": min(row["high"], 1.0)}


def _interval(score: Score) -> str:
    return f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"
