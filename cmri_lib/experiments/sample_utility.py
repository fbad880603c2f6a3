"""What anybody's samples teach a segmenter: train on synthetic, test on real (TSTR), as notebook 07 does it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.experiments.banks import sampling_conditions
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.utility.downstream import train_student, tstr, tstr_difference
from cmri_lib.reporting.results import Named, with_system_columns
from cmri_lib.systems.system import file_name

#: Folder of these trainings, and what the difference to real slices is called in tables.
STAGE, DIFFERENCE = "samples_of_others", "downstream_dice_minus_real"


@dataclass(frozen=True)
class Utility:
    """What two students have learnt, of the same network, for as many steps, from as many slices.

    Attributes:
        slices: how many each has learnt from.
        patients: real test patients on whom they are compared.
        difference: Dice of the student of samples minus that of the student of real slices, paired.
        rows: tidy rows of the former, whose ceiling is the latter, and of the difference.
    """

    slices: int
    patients: int
    difference: Score
    rows: tuple[dict[str, object], ...]


def refuse_what_cannot_teach(samples: Slices, training: Slices, test: Slices) -> None:
    """Raise DataError if samples, training or test have no masks, or samples masks that are test patients' own and no training
    patient's: a segmenter would have met those hearts."""
    if not samples.masks.any():
        raise DataError("the samples have no masks", field="utility",
                        remedy="give each NAME its NAME_mask, or leave out --utility")
    for split, side in (("training", training), ("test", test)):
        if not side.masks.any():
            raise DataError(f"nobody has labelled this cohort's {split} patients", field="utility",
                            remedy="leave out --utility")
    known = {mask.tobytes() for mask in test.masks if mask.any()} - {mask.tobytes() for mask in training.masks}
    if met := sum(mask.tobytes() in known for mask in samples.masks):
        raise DataError(f"{met} of {len(samples)} masks are those of test patients, on whom the segmenter would be tested",
                        field="utility", remedy="draw samples under masks of training patients, or leave out --utility")


def teach(study: Study, of: Named, samples: Slices, training: Slices, test: Slices) -> Utility:
    """Train one segmenter on `samples` and one on as many slices of `training`, and test both on `test`.

    Args:
        training: slices of training patients.
        test: slices of others. Of both those count whom somebody has outlined.

    Raises:
        DataError: as `refuse_what_cannot_teach`.
    """
    refuse_what_cannot_teach(samples, training, test)
    training, test = (some.where(patient=np.unique(some.patients[some.masks.any((1, 2))])) for some in (training, test))
    real = sampling_conditions(training, len(samples), study.seed, split="train").take(np.arange(len(samples)))
    settings, folder = replace(study.params.conditional.student, seed=study.seed), study.work(STAGE) / "students"
    options = {"seed": study.seed, "resamples": study.params.fidelity.resamples}
    # Whose masks they are their maker alone knows; that they are no test patient's has been seen.
    mine, reference = (train_student(some.with_columns(split="train"), settings, folder / file_name(name))
                       for name, some in ((f"of {of.id}", samples), (f"real, {len(samples)} slices", real)))
    difference = tstr_difference(test, mine, reference, **options)
    rows = [*tstr(test, mine, reference, **options), difference.row(DIFFERENCE, "utility", "higher")]
    return Utility(len(samples), len(np.unique(test.patients)), difference, tuple(with_system_columns(of, rows)))
