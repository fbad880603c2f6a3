"""Is it useful? Segmenters that differ in what they learn from (`arms.Arm`), and only there.

Network, augmentation, optimiser steps and seeds are the same in every arm of a baseline; no arm looks at
validation or test patients. An arm may learn from some patients, and nothing of the others may leak in: not
through the generator, not through the masks its samples follow, not through the segmenter that labels or
selects them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
from joblib import delayed

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.cohort.vocabulary import names_nothing
from cmri_lib.config.study import Study
from cmri_lib.errors import SplitError
from cmri_lib.experiments.arm_samples import arm_bank, load_or_draw, most_adherent, refuse_generators
from cmri_lib.experiments.arms import Arm, own_patients, own_slices
from cmri_lib.experiments.parallel import at_once, silently, train_all
from cmri_lib.experiments.provenance import patients_seen, refuse_leaks
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.measures.statistics.bootstrap import MINIMUM
from cmri_lib.measures.utility.baselines import NothingLabelled, baseline, fit, frozen
from cmri_lib.measures.utility.downstream import pseudo_label
from cmri_lib.measures.utility.heart_volumes import function_errors, function_rows
from cmri_lib.measures.utility.volumetric import mean_dice, overall_rows, volume_scores, volumetric_rows
from cmri_lib.reporting.results import with_system_columns
from cmri_lib.systems.system import file_name

#: The baseline of every arm, unless another is asked for.
NETWORK = "U-Net"
#: Where the labels of samples come from.
SOURCES = ("masks of training patients", "masks drawn by a network", "pseudo-labels of a segmenter")


@dataclass(frozen=True)
class Student:
    """A trained segmenter of an arm.

    Attributes:
        network: name of its baseline.
        segment: images (N, 1, H, W) → masks (N, H, W).
        patients: everyone who has left a trace in it, through real slices or through a generator.
    """

    arm: Arm
    network: str
    seed: int
    segment: Cached
    patients: frozenset[str]

    @property
    def id(self) -> str:
        return self.arm.id if self.network == NETWORK else f"{self.arm.id} ({self.network})"

    @property
    def family(self) -> str:
        return self.arm.family

    @property
    def conditioning(self) -> str:
        return self.arm.conditioning

    def scores(self, test: Slices, *, distances: bool = True) -> pd.DataFrame:
        """`volume_scores` on real test slices. Raises SplitError if it has met one of the patients."""
        return volume_scores(self._segmented(test), test, distances=distances)

    def function_errors(self, test: Slices) -> pd.DataFrame:
        """`function_errors` on real test slices. Raises SplitError if it has met one of the patients."""
        return function_errors(self._segmented(test), test)

    def _segmented(self, test: Slices) -> np.ndarray:
        if met := sorted(self.patients & set(test.patients)):
            raise SplitError(f"{self.id} has met {len(met)} of the test patients, e.g. {met[:3]}",
                             field="patient", remedy='score it on slices.where(split="test", source="real")')
        return self.segment(test.images)


def train_arm(study: Study, arm: Arm, slices: Slices, *, network: str = NETWORK, seed: int | None = None,
              mirror: bool = False) -> Student:
    """Train a segmenter as `arm` says, or load it.

    Args:
        slices: the whole preprocessed cohort; the arm says which of them it may use.
        network: name of the baseline.
        seed: of its weights, of its batches and of the samples' noise; the study's by default.
        mirror: at test time, see `networks.residual_unet.Mirrored`.

    Raises:
        SplitError: if anything that it learns from bears a trace of a patient whom it may not use, before
            anything is trained.
    """
    seed = study.seed if seed is None else seed
    real = own_slices(study, arm, slices)
    parts = {"samples": draw_samples(study, arm, slices, network=network, seed=seed)} if arm.images else {}
    parts |= {"real": real} if arm.real else {}
    for part in parts.values():
        refuse_leaks(part, slices, own_patients(study, arm, slices), arm.id)
    folder = study.work(arm.stage) / file_name(network) / file_name(arm.id) / f"seed-{seed}"
    settings, start = replace(study.params.utility.training, seed=seed), None
    if arm.pretraining:
        first = min(settings.steps - 1, max(1, round(arm.pretraining * settings.steps)))
        start = fit(baseline(network), parts.pop("samples"), replace(settings, steps=first),
                    folder / "pretraining")
        settings = replace(settings, steps=settings.steps - first)
    model = fit(baseline(network), _joined(list(parts.values())), settings, folder, start)
    seen = frozenset(real.patients).union(*(patients_seen(run, slices) for run in arm.runs))
    return Student(arm, network, seed, frozen(model, seed, mirror=mirror), seen)


def draw_samples(study: Study, arm: Arm, slices: Slices, *, network: str = NETWORK, seed: int | None = None
                 ) -> Slices:
    """The samples of an arm: its generators are trained or loaded, and drawn from, unless their bank is kept.

    What has no mask is labelled by the student of the same real slices, and so is selected what has several
    candidates.

    Raises:
        SplitError: if a generator has seen a patient whom the arm may not use.
    """
    seed = study.seed if seed is None else seed
    banks = [load_or_draw(study, arm, slices, seed, k) for k in range(arm.candidates)]
    labelled = banks[0].masks.any()
    if labelled and arm.candidates == 1:
        return banks[0]
    student = train_arm(study, arm.plain, slices, network=network, seed=seed)
    return pseudo_label(student.segment, banks[0]) if arm.candidates == 1 else most_adherent(banks, student.segment)


def source_of_labels(study: Study, arm: Arm, slices: Slices) -> str:
    """Where the labels of an arm's samples come from, one of `SOURCES`. Its first bank is drawn, unless it is kept."""
    if not load_or_draw(study, arm, slices, study.seed).masks.any():
        return SOURCES[2]
    return SOURCES[0] if arm.masks is None else SOURCES[1]


def train_arms(study: Study, arms: Iterable[Arm], slices: Slices, *, network: str = NETWORK,
               seeds: Sequence[int] | None = None) -> dict[str, list[Student]]:
    """Every arm trained or loaded, with every seed: id → its students, in the order of the seeds.

    What they need is made first, and what does not need each other at once, as ``workers`` of ``params.yaml`` says:
    generators, students of real slices alone, banks, all other students.

    An arm of samples alone in which the student that labels them sees no heart has nothing to learn: it is left out, with
    a word.
    """
    arms, seeds = list(arms), [study.seed] if seeds is None else list(seeds)
    for arm in arms:
        refuse_generators(study, arm, slices)
    train_all(study, [run for arm in arms for run in arm.runs], slices)
    plain = {arm.plain.id: arm.plain for arm in arms}
    banks = {}  # of those that share a folder the largest
    for arm, seed, k in [(a, s, k) for a in arms if a.images for s in seeds for k in range(a.candidates)]:
        bank = arm_bank(study, arm, slices, seed, k)
        if bank.folder not in banks or banks[bank.folder][0] < bank.count:
            banks[bank.folder] = bank.count, (arm, seed, k)
    at_once(study, "students of real slices", [delayed(silently)(train_arm, study, arm, slices, network=network, seed=seed)
                                                for arm in plain.values() for seed in seeds])
    at_once(study, "banks", [delayed(silently)(load_or_draw, study, arm, slices, seed, k)
                              for _, (arm, seed, k) in banks.values()])
    at_once(study, "students", [delayed(silently)(train_arm, study, arm, slices, network=network, seed=seed)
                                 for arm in arms if arm.images for seed in seeds])
    found = {}
    for arm in arms:  # those that were trained in other processes are loaded
        try:
            found[arm.id] = [train_arm(study, arm, slices, network=network, seed=seed) for seed in seeds]
        except NothingLabelled as problem:
            print(f"left out, {arm.id}: {problem.problem}")
    return found


def _joined(parts: Sequence[Slices]) -> Slices:
    """Images and masks of all; tissues are no task."""
    return concatenate([Slices(part.images, part.masks, part.table) for part in parts])


def arm_rows(students: Sequence[Student], test: Slices, reference: Sequence[pd.DataFrame] | None = None, *,
             tables: Sequence[pd.DataFrame] | None = None, seed: int = 0, resamples: int = 1000) -> list[dict[str, object]]:
    """Tidy rows of one arm from its students of several seeds: overlap, distance, misses, heart function.

    Args:
        reference: `Student.scores` of the students of the same real slices alone, whose means are the ceilings of the
            overall rows; these rows are left out without it.
        tables: `Student.scores` of the students, if they are known already.

    Raises:
        SplitError: if a student has met a test patient.
    """
    options = {"seed": seed, "resamples": resamples}
    tables = [student.scores(test) for student in students] if tables is None else tables
    rows = volumetric_rows(tables, **options)
    if reference is not None:
        rows += overall_rows(tables, reference, **options)
    rows += function_rows([student.function_errors(test) for student in students], **options)
    return with_system_columns(students[0], rows)


def dice_tables(students: Sequence[Student], test: Slices) -> list[pd.DataFrame]:
    """`volume_scores` of every student, without distances."""
    return [student.scores(test, distances=False) for student in students]


def group_rows(arms: Sequence[Sequence[Student]], test: Slices, kinds: Iterable[str], **options: object
               ) -> list[dict[str, object]]:
    """Mean Dice of each arm's students in the groups of test patients by every column in `kinds`, disease say: kind, group,
    arm, value, low, high, n. Groups of fewer than `MINIMUM` patients are left out, and so is who belongs to none that is
    known."""
    rows = []
    for kind in kinds:
        groups = sorted((group for group in set(test.table[kind]) if not names_nothing(group)), key=str)
        parts = {group: test.where(**{kind: group}) for group in groups}
        for students, (group, part) in product(arms, parts.items()):
            if len(set(part.patients)) >= MINIMUM and part.masks.any():
                score = mean_dice(dice_tables(students, part), **options)
                rows.append({"kind": kind, "group": group, "arm": students[0].id, "value": score.value, "low": score.low,
                             "high": score.high, "n": score.n})
    return rows
