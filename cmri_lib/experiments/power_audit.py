"""Attacks with shadow models, and attacks calibrated by a reference.

Hold-out patients may never be learnt from, so all who take part are training patients: a third of them members, a third
non-members, a third for the reference of calibrated attacks (`privacy_runs.shadow_runs`).
"""

from __future__ import annotations

from cmri_lib.cohort.slices import concatenate
from cmri_lib.errors import DataError
from cmri_lib.experiments.privacy_audit import Found, PrivacyAudit
from cmri_lib.experiments.privacy_runs import few_slices, shadow_runs, shadow_thirds
from cmri_lib.experiments.provenance import patients_seen
from cmri_lib.experiments.training import train_or_load
from cmri_lib.privacy.attack import Attack, Calibrated, Sides, Target, attack_rows, membership_scores
from cmri_lib.privacy.attacks.shadow_models import RMIA, LiRA
from cmri_lib.reporting.results import with_system_columns
from cmri_lib.systems.system import Run


class PowerAudit:
    """``PowerAudit(audit).scores()``, ``.rows()``: the denoising loss, calibrated loss, LiRA and RMIA on one system."""

    def __init__(self, audit: PrivacyAudit):
        self.audit, self.study = audit, audit.study
        self.thirds = shadow_thirds(audit.study, audit.slices)
        self.run, self.reference, *self.shadows = shadow_runs(audit.study, audit.slices)

    def scores(self) -> Found:
        """Loss, calibrated loss, LiRA and RMIA on the same patients. Raises DataError if the system has no denoising loss."""
        base = self.audit.loss
        target, reference, *shadows = map(self._target, (self.run, self.reference, *self.shadows))
        if not base.suits(target):
            raise DataError(f"{self.run.system.id} has no denoising loss", field="privacy.shadows.system",
                            remedy="choose a diffusion or a flow")
        each = self.audit.params.patients, self.audit.params.slices, self.study.seed
        sides = Sides(*(few_slices(self.audit.training.where(patient=names), *each) for names in self.thirds[:2]))
        everyone = concatenate([sides.members, sides.nonmembers])
        attacks: list[Attack] = [base, Calibrated(base, reference), LiRA(base, tuple(shadows), everyone)]
        if len(self.audit.strangers):
            attacks.append(RMIA(base, tuple(shadows), few_slices(self.audit.strangers, *each)))
        return {attack.name: membership_scores(attack, target, sides, seed=self.study.seed)
                for attack in attacks}

    def rows(self) -> list[dict[str, object]]:
        """Tidy rows of these."""
        return with_system_columns(self.run, [row for name, found in self.scores().items()
                                              for row in attack_rows(name, [found], **self.audit.options)])

    def _target(self, run: Run) -> Target:
        generator = train_or_load(self.study, run, self.audit.slices)
        return Target(f"{run.id} {run.folder}", patients_seen(run, self.audit.slices), generator)
