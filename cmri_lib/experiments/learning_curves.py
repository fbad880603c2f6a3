"""Learning curves: the same evaluation of a system after other amounts of training, on other numbers of patients, or with
other numbers of network evaluations.

A point is the distance of anatomy and of appearance and the KID to real patients, and the share of samples that lie nearer
to training than to hold-out patients, where the cohort has enough of both. Every point draws `params.curves.images` samples
under the same conditions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cmri_lib.cohort.requirements import outlook
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.training import (first_stage_seconds, train_or_load, training_folder, training_log,
                                           training_patients, training_slices)
from cmri_lib.generators.base import Generator
from cmri_lib.measures.statistics.bootstrap import Score, score_difference
from cmri_lib.reporting.claims import finished, share
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE
from cmri_lib.reporting.results import with_system_columns
from cmri_lib.systems.system import Run, System
from cmri_lib.training.checkpoint import load_weights
from cmri_lib.training.loop import snapshot_file

#: Columns of the rows of `LearningCurves.last_doubling`.
DOUBLING_COLUMNS = ["system", "family", "conditioning", "metric", "before", "value", "low", "high", "n", "share", "finished"]
KEPT = ("mmd_anatomy", "mmd_classical", "kid_study", "nearest_share_study")


def runs_over_patients(study: Study, slices: Slices, system: System) -> list[Run]:
    """One run for each number of training patients of ``curves.patients``, the last on all of them."""
    every = training_patients(study, slices)
    numbers = sorted({*(n for n in study.params.curves.patients if n < len(every)), len(every)})
    return [Run(system, None if n == len(every) else every[:n]) for n in numbers]


class LearningCurves:
    """``curves.over_compute(run)``, and so on: rows of `KEPT`.

    Args:
        slices: the preprocessed cohort.
    """

    def __init__(self, study: Study, slices: Slices):
        self.study, self.slices = study, slices
        self.evaluator = Evaluator(study, slices, study.params.curves.images, "distance")
        self.audits = bool(outlook(slices)["near-copy audit"])

    def over_compute(self, run: Run) -> list[dict[str, object]]:
        """Quality on the way: the snapshots kept during training, and its end. x: images seen."""
        generator = train_or_load(self.study, run, self.slices)
        settings, log = run.settings(self.study.params, self.study.seed), training_log(self.study, run)
        before, rows = first_stage_seconds(self.study, run), []
        for step in (*settings.snapshot_steps(), settings.steps):
            self._load(run, generator, step)
            reached = log[log["step"] >= step].iloc[0]
            point = {"curve": "images", "x": step * settings.batch, "seconds": reached["seconds"] + before}
            rows += [{**point, **row} for row in self._point(run, generator)]
        return rows

    def last_doubling(self, run: Run) -> list[dict[str, object]]:
        """What the second half of a training changed in each headline distance, paired over patients and noise: `before`,
        value (the change), low, high, share (of `before`), finished (`claims.finished`). No rows where half was not kept."""
        generator, settings = train_or_load(self.study, run, self.slices), run.settings(self.study.params, self.study.seed)
        half, end = settings.steps // 2, settings.steps
        if half not in settings.snapshot_steps():
            return []
        banks, rows = {}, []
        for step in (half, end):
            self._load(run, generator, step)
            banks[step] = self.evaluator.bank(run, generator)
        values = {row["metric"]: row["value"] for row in self.evaluator.rows(run, banks[half])}
        for metric in (ANATOMY, APPEARANCE):
            change, before = self.evaluator.difference(banks[end], banks[half], metric), values[metric]
            rows.append({"metric": metric, "before": before, "value": change.value, "low": change.low, "high": change.high,
                         "n": change.n, "share": share(change, before), "finished": finished(change, before)})
        return with_system_columns(run, rows)

    def over_patients(self, system: System) -> list[dict[str, object]]:
        """Quality and memory (``nearest_gap_study``) against training patients, each number trained anew with the same number
        of steps. x: patients."""
        rows = []
        for run in runs_over_patients(self.study, self.slices, system):
            patients = len(run.patients or training_patients(self.study, self.slices))
            bank = self.evaluator.bank(run, train_or_load(self.study, run, self.slices))
            points = [*self._scored(run, bank), *with_system_columns(run, self._gap(run, bank))]
            rows += [{"curve": "patients", "x": patients, **row, "system": system.id} for row in points]
        return rows

    def over_evaluations(self, run: Run, generator: Generator, samplers: Mapping[str, Mapping[int, Mapping[str, object]]]
                         ) -> list[dict[str, object]]:
        """Quality against network evaluations. `samplers`: label → {NFE: choices for `Generator.sample`}. x: NFE."""
        return [{"curve": "NFE", "x": nfe, "sampler": label, **row}
                for label, points in samplers.items() for nfe, choices in points.items()
                for row in self._point(run, generator, **choices)]

    def _load(self, run: Run, generator: Generator, step: int) -> None:
        """The weights of a training after `step` steps: a snapshot, or its end."""
        folder, last = training_folder(self.study, run), run.settings(self.study.params, self.study.seed).steps
        load_weights(generator, folder / "weights.safetensors" if step == last else snapshot_file(folder, step))

    def _point(self, run: Run, generator: Generator, **choices: object) -> list[dict[str, object]]:
        return self._scored(run, self.evaluator.bank(run, generator, **choices))

    def _scored(self, run: Run, bank: Slices) -> list[dict[str, object]]:
        rows = self.evaluator.rows(run, bank)
        if self.audits:
            rows += with_system_columns(run, self.evaluator.audit(bank, training_slices(run, self.slices)[0]).rows)
        return [row for row in rows if row["metric"] in KEPT]

    def _gap(self, run: Run, bank: Slices) -> list[dict[str, object]]:
        """How much nearer samples are to the patients the run learnt from than to as many validation patients, whom it never
        saw: the same samples, so that what a family's samples are like (blurred, noisy) is on both sides. No row where the
        cohort allows no audit or has no validation patients."""
        seen = training_slices(run, self.slices)[0]
        strangers = self.slices.where(split="validation")
        if not self.audits or not len(strangers):
            return []
        names = np.unique(strangers.patients)[:len(np.unique(seen.patients))]
        shares = (self.evaluator.audit(bank, side).rows[0] for side in (seen, strangers.where(patient=names)))
        near, null = (Score(row["value"], row["low"], row["high"], row["n"]) for row in shares)
        return [score_difference(near, null).against(0.0, 1 - null.value).row("nearest_gap_study", "privacy", "lower")]
