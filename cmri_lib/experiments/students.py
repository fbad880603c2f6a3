"""What samples teach a segmenter (train on synthetic, test on real), for a notebook that asks it beside other questions. All
students of a notebook have one network, learn for as many steps and are tested on the same real slices. Notebooks 09 and 17,
which are about nothing else, compare `arms`."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.utility.downstream import train_student, tstr, tstr_difference
from cmri_lib.reporting.results import Named, with_system_columns
from cmri_lib.systems.system import file_name


class Students:
    """Students whose weights lie with the other trainings of a stage.

    Args:
        real: labelled slices of the training split that the *ceiling* learns from: as many as a student has samples.
        test: labelled slices of other patients.
        task: where a stage has several, each with its own ceiling.
    """

    def __init__(self, study: Study, stage: str, real: Slices, test: Slices, task: str = ""):
        self.study, self.real, self.test = study, real, test
        self.folder = study.work(stage) / "students" / file_name(task)
        self.options = {"seed": study.seed, "resamples": study.params.fidelity.resamples}

    @cached_property
    def ceiling(self) -> Cached:
        """The student of real slices."""
        return self.taught("real", self.real)

    def taught(self, name: str, slices: Slices) -> Cached:
        """The student `name`, trained on images and masks of `slices`, or loaded.

        Raises:
            SplitError: if a mask is not one of the training split.
            NothingLabelled: if there is no mask to learn from.
        """
        return train_student(slices, replace(self.study.params.utility.training, seed=self.study.seed),
                             self.folder / file_name(name))

    def rows(self, of: Named | str, student: Cached) -> list[dict[str, object]]:
        """Tidy rows of a student on test patients, see `tstr`."""
        return with_system_columns(of, tstr(self.test, student, self.ceiling, **self.options))

    def difference(self, first: Cached, second: Cached) -> Score:
        """Dice of the first minus that of the second, on the same test patients."""
        return tstr_difference(self.test, first, second, **self.options)
