"""Private trainings under attack: members against the hold-out as in notebook 11, and canaries against
canaries.

Canaries who were learnt from differ from those who were left out in what private training has changed: the
denoising loss under the private weights minus that under the public ones, from which the training started
(Watson et al. 2022, eq. 3); of a GAN the critic's output in its place. The mean over times is taken, so that
nothing is chosen by looking at the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import pandas as pd

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.experiments.kept_attacks import Kept
from cmri_lib.experiments.privacy_audit import BLIND, NULL, PrivacyAudit
from cmri_lib.experiments.privacy_runs import few_slices
from cmri_lib.experiments.private_training import accounted, public_run, roles, train_or_load_any
from cmri_lib.experiments.provenance import patients_seen
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.statistics.seeds import bootstrap_seeds
from cmri_lib.privacy.attack import Attack, Calibrated, PatientScores, Target, auc, score_of
from cmri_lib.privacy.attacks.critic import CriticOutput
from cmri_lib.privacy.differential.canaries import epsilon_lower_bound, right_guesses
from cmri_lib.reporting.results import with_system_columns
from cmri_lib.systems.private import STAGE
from cmri_lib.systems.system import Run

#: The settings of the denoising loss, and of the critic's output, that canaries are scored by.
SETTINGS = {"loss": "all times", "critic": "logit"}


@dataclass(frozen=True)
class CanaryAudit:
    """What the canaries of one training show.

    Attributes:
        canaries, guesses, right: how many there are, how many were guessed about, and guessed right.
        lower: ε that is refuted with 95 % confidence. sure: with 99.9 %.
        most: what `lower` would be if every guess were right.
        auc: of those learnt from against those left out.
    """

    canaries: int
    guesses: int
    right: int
    lower: float
    sure: float
    most: float
    auc: Score


class PrivateAudit(PrivacyAudit):
    """The audit of notebook 11 with one attack, the denoising loss or the critic's output, on private trainings and
    what they start from.

    Args:
        slices: the whole preprocessed cohort.
    """

    stage = STAGE

    def __init__(self, study: Study, slices: Slices):
        super().__init__(study, slices)
        settings = study.params.differential_privacy
        self.params = replace(self.params, slices=settings.slices, times=settings.times)
        self.nonmembers = few_slices(self.holdout, self.params.patients, self.params.slices, study.seed)
        self.roles = roles(study, slices)
        self._canaries: dict[str, CanaryAudit] = {}

    @cached_property
    def attacks(self) -> list[Attack]:
        return [self.loss, self.critic]

    @cached_property
    def critic(self) -> Kept:
        """What a GAN's critic says."""
        return self.kept(CriticOutput())

    def attack_on(self, run: Run) -> Attack:
        """The attack that suits the family of a run."""
        return self.critic if run.family == "GAN" else self.loss

    def target(self, run: Run, **choices: object) -> Target:
        """The trained run; nothing is sampled."""
        if run.id not in self._targets:
            generator = train_or_load_any(self.study, run, self.slices)
            self._targets[run.id] = Target(run.id, patients_seen(run, self.slices), generator)
        return self._targets[run.id]

    def canaries(self, run: Run) -> CanaryAudit:
        """Canaries learnt from against canaries left out. Half of them are guessed about: a quarter from
        either end."""
        if run.id not in self._canaries:
            self._canaries[run.id] = self._audited(run)
        return self._canaries[run.id]

    def _audited(self, run: Run) -> CanaryAudit:
        scores, included = self._canary_scores(run)
        count, guesses, delta = len(scores), max(1, len(scores) // 2), self.roles.delta
        right = right_guesses(scores.to_numpy(), included, guesses)
        lower, most = (epsilon_lower_bound(count, guesses, v, delta) for v in (right, guesses))
        sure = epsilon_lower_bound(count, guesses, right, delta, confidence=0.999)
        return CanaryAudit(count, guesses, right, lower, sure, most, self._auc(scores[included], scores[~included]))

    def _canary_scores(self, run: Run) -> tuple[pd.Series, np.ndarray]:
        """Score of each canary, by name, and who of them the run has learnt from."""
        start = self.target(public_run(self.study, self.slices, run.system.id.removeprefix("private ")))
        everybody = self.training.where(patient=list(self.roles.canaries))
        some = few_slices(everybody, len(everybody), self.params.slices, self.study.seed)
        attack = self.attack_on(run)
        by_slice = Calibrated(attack, start).scores(self.target(run), some)[SETTINGS[attack.name]]
        scores = by_slice.groupby(some.patients).mean()
        return scores, scores.index.isin(run.patients)

    def over_tosses(self, runs: Sequence[Run]) -> Score:
        """AUC of canaries learnt from against those left out: the mean over trainings that differ in their coins, with an
        interval over patients and trainings. A patient is on one side in one training and on the other in the next, so
        being easy to draw is worth nothing. NaN where a toss puts all on one side."""
        found = [self._canary_scores(run) for run in runs]
        if any(included.all() or not included.any() for _, included in found):
            return Score(float("nan"), float("nan"), float("nan"), 0)
        each = [partial(_weighted_auc, scores.to_numpy(), included) for scores, included in found]
        return bootstrap_seeds(each, found[0][0].index.to_numpy(), **self.options)

    def _auc(self, inside: pd.Series, outside: pd.Series) -> Score:
        """NaN if all coins fell alike."""
        if not len(inside) or not len(outside):
            return Score(float("nan"), float("nan"), float("nan"), 0)
        sides = inside, outside
        values, names = ([part(side) for side in sides] for part in (pd.Series.to_numpy, lambda s: s.index.to_numpy()))
        found = PatientScores(*values, *names, ("mean",))
        return score_of(found, **self.options)

    def toss_rows(self, runs: Sequence[Run]) -> list[dict[str, object]]:
        """The tidy row of `over_tosses`, under the first run's name."""
        name = f"attack_auc_{self.attack_on(runs[0]).name}_tosses"
        return with_system_columns(runs[0], [self.over_tosses(runs).against(0.5, 1.0).row(name, "privacy", "lower")])

    def holdout_rows(self, run: Run) -> list[dict[str, object]]:
        """The tidy row of the attack that tells patients learnt from (of a private run, the private ones)
        from the hold-out."""
        name = self.attack_on(run).name
        return with_system_columns(run, [self.score(run, name).against(0.5, 1.0).row(f"attack_auc_{name}", "privacy", "lower")])

    def canary_rows(self, run: Run) -> list[dict[str, object]]:
        """Tidy rows of a private run: the attack on canaries, and the ε accounted for and proved."""
        canaries, upper = self.canaries(run), accounted(self.study, self.slices, run)
        name = f"attack_auc_{self.attack_on(run).name}_calibrated"
        rows = [canaries.auc.against(0.5, 1.0).row(name, "privacy", "lower")]
        bounds = {f"epsilon_{name.lower()}": value for name, value in upper.items() if np.isfinite(value)}
        rows += [Score(value, float("nan"), float("nan"), canaries.canaries).against(0.0, float("nan"))
                 .row(name, "privacy", "lower") for name, value in
                 {**bounds, "epsilon_lower": canaries.lower, "epsilon_lower_most": canaries.most}.items()]
        return with_system_columns(run, rows)

    def control_rows(self, run: Run) -> list[dict[str, object]]:
        """Tidy rows of its null, hold-out against hold-out, and of the blind baseline."""
        name = self.attack_on(run).name
        null = score_of(self.scores(run, null=True)[name]["mean"], **self.options)
        return [{"family": run.family, "conditioning": run.conditioning, "system": f"{run.id}, {label}",
                 **score.against(0.5, 1.0).row(f"attack_auc_{attack}", "privacy", "lower")}
                for label, score, attack in ((NULL, null, name), (BLIND, self.blind(run), "blind"))]


def _weighted_auc(scores: np.ndarray, included: np.ndarray, counts: np.ndarray) -> float:
    """AUC of those learnt from against the others, each counted so often; NaN where a draw has one side only."""
    inside, outside = counts[included], counts[~included]
    return auc(scores[included], scores[~included], inside, outside) if inside.any() and outside.any() else np.nan
