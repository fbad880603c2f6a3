"""What private samples teach a segmenter (notebook 12).

Samples of generators without masks bear no labels. Whoever labels them must have learnt from public patients alone: what a
segmenter of the private ones says of a sample would give these away, past the guarantee. So samples, labels and the student
that learns from them follow from private weights and public patients, and are as private as the weights (post-processing).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.experiments.banks import sampling_conditions
from cmri_lib.experiments.private_training import roles
from cmri_lib.experiments.students import Students
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.measures.utility.downstream import pseudo_label
from cmri_lib.systems.private import STAGE
from cmri_lib.systems.system import Run


class PrivateStudents(Students):
    """Students of samples; the *ceiling* has learnt from about as many real slices of private patients.

    Args:
        slices: the whole preprocessed cohort.
    """

    def __init__(self, study: Study, slices: Slices):
        who, learnt = roles(study, slices), slices.where(split="train", source="real")
        self.public, private = (learnt.where(patient=list(names)) for names in (who.public, who.private))
        count = study.params.differential_privacy.samples
        real = sampling_conditions(private, count, study.seed, split="train")
        super().__init__(study, STAGE, real, slices.where(split="test", source="real"))

    @cached_property
    def labeller(self) -> Cached:
        """The student of the public patients' slices, which labels all samples. A student of samples that is no better has
        learnt nothing from private patients."""
        return self.taught("public patients", self.public)

    def of(self, run: Run, samples: Slices) -> Cached | None:
        """The student of a run's samples; None where the labeller sees no heart in any.

        Args:
            samples: of a generator without conditions. In whose place each was drawn is then no matter: they count as slices
                of the training split, whatever split that was.

        Raises:
            DataError: if the samples follow masks.
        """
        if samples.masks.any():
            raise DataError(f"samples of {run.id} follow masks", field="samples",
                            remedy="give those of a system without conditions")
        drawn = pseudo_label(self.labeller, replace(samples, table=samples.table.assign(split="train")))
        return self.taught(run.id, drawn) if drawn.masks.any() else None
