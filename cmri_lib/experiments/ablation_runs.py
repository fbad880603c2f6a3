"""What notebook 07 compares besides whole systems."""

from __future__ import annotations

from functools import partial

from cmri_lib.cohort.label_noise import with_label_noise
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.experiments.training import training_patients
from cmri_lib.systems.ablation import COMPARED, COMPARED_SETS, ablation_system, condition_set_system
from cmri_lib.systems.system import Run, Variant

#: The system that learns from worse labels, or from fewer labelled patients (claim M6).
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


def compared_runs(study: Study, slices: Slices) -> list[Run]:
    """What primary tests of the ablation compare: notebook 07 trains it with several seeds."""
    return [*(Run(ablation_system(*cell)) for cell in COMPARED),
            *(Run(condition_set_system("flow", name)) for name in COMPARED_SETS),
            *noisy_label_runs(study)[:1], *fewer_label_runs(study, slices)[:1]]
