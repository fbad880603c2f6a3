"""Claim M6: the same system learns from worse labels, or from fewer labelled patients."""

from __future__ import annotations

from functools import partial

from cmri_lib.cohort.label_noise import with_label_noise
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.experiments.training import training_patients
from cmri_lib.systems.ablation import ablation_system
from cmri_lib.systems.system import Run, Variant

#: The system whose labels change.
LABEL_QUALITY = ablation_system("flow", "labels", "concat")


def noisy_label_runs(study: Study) -> list[Run]:
    """`LABEL_QUALITY` on masks with errors of each of ``conditional.label_noise`` mm."""
    return [Run(LABEL_QUALITY, variant=Variant(f"labels ± {mm:g} mm", partial(with_label_noise, amount=mm, seed=study.seed)))
            for mm in study.params.conditional.label_noise]


def fewer_label_runs(study: Study, slices: Slices) -> list[Run]:
    """`LABEL_QUALITY` on each of ``conditional.patients`` shares of the patients, most first; all start from the network
    that has seen the images of all patients."""
    patients, unlabelled = training_patients(study, slices), Run(LABEL_QUALITY.pretrained)
    counts = {max(1, round(share * len(patients))) for share in study.params.conditional.patients}
    return [Run(LABEL_QUALITY, patients=patients[:count], pretrained=unlabelled) for count in sorted(counts, reverse=True)
            if count < len(patients)]
