"""Trainings that do not need each other, at once: one process and one core each.

Small networks make poor use of a second core: four trainings (U2, U5, U6, U10) that took 80 s on two cores one after
another took 59 s side by side. Nothing else changes: `protocol.trained` finds afterwards what it would else have trained.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import redirect_stderr, suppress

from accelerate import Accelerator
from joblib import Parallel, cpu_count, delayed
from tqdm import tqdm

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.errors import StudyError
from cmri_lib.experiments import protocol
from cmri_lib.systems.unconditional import System

#: A system, the slices it learns from, and how many of their patients (None: all).
Lesson = tuple[System, Slices, int | None]


def train_all(study: Study, lessons: Iterable[Lesson]) -> None:
    """Train every system of `lessons` that is not yet trained; what others start from, or share, comes first.

    `workers` of ``params.yaml`` says how many at once (0: one per core). With one, or on a GPU, which a single training
    fills, this does nothing and `protocol.trained` does all.
    """
    workers = study.values["workers"] or cpu_count()
    if workers == 1 or Accelerator().device.type != "cpu":
        return
    for wave in waves(list(lessons)):
        jobs = Parallel(n_jobs=min(workers, len(wave)), return_as="generator_unordered")(
            delayed(_train)(study, *lesson) for lesson in wave)
        for _ in tqdm(jobs, total=len(wave), desc=f"{min(workers, len(wave))} at once", unit="training"):
            pass


def waves(lessons: list[Lesson]) -> list[list[Lesson]]:
    """The lessons in groups, no two of one group in need of the same network: the systems that others start from (theirs
    first), then one system for each first stage, then the rest."""
    pasts = {(s.start.id, patients): (s.start, slices, patients) for s, slices, patients in lessons if s.start}
    first, rest, stages = [], [], set()
    for lesson in (one for one in lessons if (one[0].id, one[2]) not in pasts):
        system, _, patients = lesson
        # A first stage that the past has too is trained with the past.
        stage = "" if system.start and system.start.first_stage == system.first_stage else system.first_stage
        (rest if stage and (stage, patients) in stages else first).append(lesson)
        stages.add((stage, patients))
    before = waves(list(pasts.values())) if pasts else []
    return [*before, *(wave for wave in (first, rest) if wave)]


def _train(study: Study, system: System, slices: Slices, patients: int | None) -> None:
    """One lesson in a process of its own: silent, for its progress would mingle with that of others. What is wrong with a
    lesson is said when `protocol.trained` comes to it."""
    with redirect_stderr(io.StringIO()), suppress(StudyError):
        protocol.trained(study, system, slices, patients)
