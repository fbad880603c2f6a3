"""Is it useful? Arms of downstream segmentation that differ in what a segmenter learns from, and only there.

Network, augmentation, optimiser steps and seeds are the same in every arm of a baseline; no arm looks at
validation or test patients. An arm may learn from some patients, and nothing of the others may leak in: not
through the generator, not through the masks its samples follow, not through the segmenter that labels or
selects them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import Study
from cmri_lib.errors import ParameterError, SplitError
from cmri_lib.experiments.banks import sampling_conditions
from cmri_lib.experiments.mask_screening import sample_valid_masks
from cmri_lib.experiments.provenance import patients_seen, refuse_leaks, refuse_seen
from cmri_lib.experiments.training import train_or_load, training_patients
from cmri_lib.generators.base import draw
from cmri_lib.measures.anatomy.adherence import Segment, dice
from cmri_lib.measures.anatomy.validity import Ranges
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.measures.utility.baselines import baseline, fit, frozen
from cmri_lib.measures.utility.downstream import pseudo_label
from cmri_lib.measures.utility.heart_volumes import function_errors, function_rows
from cmri_lib.measures.utility.volumetric import volume_scores, volumetric_rows
from cmri_lib.reporting.results import with_system_columns
from cmri_lib.systems.system import Run, System, file_name
from cmri_lib.training.batches import mixed_seed


@dataclass(frozen=True)
class Arm:
    """What a segmenter learns from.

    Attributes:
        id: a name that no other arm bears.
        fraction: of the training patients, whose real slices and masks it may use; a smaller one is part of a
            larger.
        real: whether it learns from these real slices, or from samples alone.
        images: the run that draws its samples; None for no samples.
        masks: the run that draws the masks they follow; None for the masks of the arm's own patients.
        factor: samples for each real slice of these patients.
        pretraining: share of the optimiser steps that go to the samples alone, before the rest go to the real
            slices alone; 0 mixes both.
        candidates: samples drawn for each one kept, which is the one that follows its mask best.
        generator_fraction: of the training patients that the generators may have seen; `fraction` unless
            given. What more patients behind the generator would have been worth is another arm.

    Raises:
        ParameterError: if it learns from nothing, or the fields contradict each other.
    """

    id: str
    fraction: float = 1.0
    real: bool = True
    images: Run | None = None
    masks: Run | None = None
    factor: float = 0.0
    pretraining: float = 0.0
    candidates: int = 1
    generator_fraction: float | None = None

    def __post_init__(self) -> None:
        made = self.images is not None
        rules = {
            "fraction": (0 < self.fraction <= 1, "give a share of the patients in (0, 1]"),
            "real": (self.real or made, "let it learn from real slices, from samples, or from both"),
            "factor": ((self.factor > 0) == made, "give samples a run, and a run samples"),
            "masks": (made or self.masks is None, "give the masks a run that makes images of them"),
            "pretraining": (self.pretraining == 0 or made and self.real and 0 < self.pretraining < 1,
                            "give a share below 1, samples and real slices"),
            "candidates": (self.candidates == 1 or made and self.candidates > 1, "give 1, or more and a run"),
            "generator_fraction": (self.generator_fraction is None
                                   or made and self.fraction <= self.generator_fraction <= 1,
                                   "give `fraction` or more, and a run"),
        }
        for field, (good, remedy) in rules.items():
            if not good:
                raise ParameterError(f"{field} {getattr(self, field)} in arm {self.id!r}", field=field,
                                     remedy=remedy)

    @property
    def family(self) -> str:
        return "real" if self.images is None else self.images.family

    @property
    def conditioning(self) -> str:
        return "none" if self.images is None else self.images.conditioning

    @property
    def runs(self) -> tuple[Run, ...]:
        """What it needs trained before."""
        return tuple(run for run in (self.images, self.masks) if run is not None)


@dataclass(frozen=True)
class Student:
    """A trained segmenter of an arm.

    Attributes:
        segment: images (N, 1, H, W) → masks (N, H, W).
        patients: everyone who has left a trace in it, through real slices or through a generator.
    """

    arm: Arm
    seed: int
    segment: Cached
    patients: frozenset[str]

    def scores(self, test: Slices) -> pd.DataFrame:
        """`volume_scores` on real test slices. Raises SplitError if it has met one of the patients."""
        return volume_scores(self._segmented(test), test)

    def function_errors(self, test: Slices) -> pd.DataFrame:
        """`function_errors` on real test slices. Raises SplitError if it has met one of the patients."""
        return function_errors(self._segmented(test), test)

    def _segmented(self, test: Slices) -> np.ndarray:
        if met := sorted(self.patients & set(test.patients)):
            raise SplitError(f"{self.arm.id} has met {len(met)} of the test patients, e.g. {met[:3]}",
                             field="patient", remedy='score it on slices.where(split="test", source="real")')
        return self.segment(test.images)


def arm_patients(study: Study, slices: Slices, fraction: float) -> tuple[str, ...]:
    """The first patients of `training_patients`, at least one: those of a smaller fraction are among those of
    a larger."""
    names = training_patients(study, slices)
    return names[:max(1, round(fraction * len(names)))]


def arm_seeds(study: Study) -> list[int]:
    """The seeds with which every arm is trained: the study's, and those that follow."""
    return [study.seed + k for k in range(study.params.utility.seeds)]


def real_arm(fraction: float) -> Arm:
    """The arm without samples, which every other one of the same patients is compared with."""
    return Arm(f"real, {fraction:.0%} of patients", fraction)


def utility_arms(study: Study, slices: Slices, system: System) -> list[Arm]:
    """The arms of one system for each of ``utility.fractions``, its generator trained on the same patients:
    real slices alone; samples alone; both at each of ``utility.factors``; samples, then real slices; selected
    samples."""
    settings, found = study.params.utility, []
    for fraction in settings.fractions:
        run = Run(system, patients=arm_patients(study, slices, fraction) if fraction < 1 else None)
        share, common = f"{fraction:.0%} of patients", {"fraction": fraction, "images": run}
        found += [
            real_arm(fraction),
            Arm(f"{system.id} alone, {share}", real=False, factor=1.0, **common),
            *(Arm(f"real + {factor:g} × {system.id}, {share}", factor=factor, **common)
              for factor in settings.factors),
            Arm(f"{system.id}, then real, {share}", factor=1.0, pretraining=settings.pretraining, **common),
            Arm(f"real + 1 × best of {settings.candidates} {system.id}, {share}", factor=1.0,
                candidates=settings.candidates, **common)]
    return found


def train_arm(study: Study, arm: Arm, slices: Slices, *, network: str = "U-Net", seed: int | None = None,
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
        refuse_leaks(part, slices, arm_patients(study, slices, arm.fraction), arm.id)
    folder = study.work("utility") / file_name(network) / file_name(arm.id) / f"seed-{seed}"
    settings, start = replace(study.params.utility.training, seed=seed), None
    if arm.pretraining:
        first = min(settings.steps - 1, max(1, round(arm.pretraining * settings.steps)))
        start = fit(baseline(network), parts.pop("samples"), replace(settings, steps=first),
                    folder / "pretraining")
        settings = replace(settings, steps=settings.steps - first)
    model = fit(baseline(network), _joined(list(parts.values())), settings, folder, start)
    seen = frozenset(real.patients).union(*(patients_seen(run, slices) for run in arm.runs))
    return Student(arm, seed, frozen(model, seed, mirror=mirror), seen)


def draw_samples(study: Study, arm: Arm, slices: Slices, *, network: str = "U-Net", seed: int | None = None
                 ) -> Slices:
    """The samples of an arm: its generators are trained or loaded, and drawn from.

    They follow masks of the arm's own patients, whole phases of scans, or masks that the arm's `masks` run
    draws, of which those that are no heart are drawn anew. What has no mask is labelled by the student of the
    same real slices, and so is selected what has several candidates.

    Raises:
        SplitError: if a generator has seen a patient whom the arm may not use.
    """
    seed = study.seed if seed is None else seed
    share = arm.fraction if arm.generator_fraction is None else arm.generator_fraction
    for run in arm.runs:
        refuse_seen(run, slices, arm_patients(study, slices, share), arm.id)
    real = own_slices(study, arm, slices)
    count = max(1, round(arm.factor * len(real)))
    conditions = sampling_conditions(real, count, seed, split="train").take(np.arange(count))
    if arm.masks is not None:
        masks = train_or_load(study, arm.masks, slices)
        drawn = sample_valid_masks(masks, conditions, arm.masks.id, Ranges.of(real), seed)
        conditions = drawn.take(np.arange(count) % len(drawn))
    generator = train_or_load(study, arm.images, slices)
    banks = [draw(generator, conditions, arm.images.id, seed=mixed_seed(seed, k))
             for k in range(arm.candidates)]
    labelled = banks[0].masks.any()
    if labelled and arm.candidates == 1:
        return banks[0]
    student = train_arm(study, real_arm(arm.fraction), slices, network=network, seed=seed)
    if not labelled:
        if arm.candidates > 1:
            raise ParameterError(f"samples of {arm.images.id} follow no mask", field="candidates",
                                 remedy="give 1")
        return pseudo_label(student.segment, banks[0])
    return most_adherent(banks, student.segment)


def most_adherent(banks: Sequence[Slices], segment: Segment) -> Slices:
    """Of several samples under each mask that in which `segment` finds the mask best, by mean Dice.

    Chosen mask by mask, not from the whole set, so that levels and phases stay as they were: apical slices
    score lower.
    """
    found = np.array([[_slice_dice(*pair) for pair in zip(segment(bank.images), bank.masks)]
                      for bank in banks])
    best, rows = found.argmax(axis=0), np.arange(len(banks[0]))
    images = np.stack([bank.images for bank in banks])[best, rows]
    return Slices(images, banks[0].masks, banks[0].table, banks[0].tissues)


def _slice_dice(seen: np.ndarray, mask: np.ndarray) -> float:
    """Mean over the labels that are in either; 0 without any."""
    labels = np.union1d(seen, mask)
    return float(np.mean([dice(seen == label, mask == label) for label in labels[labels > 0]] or [0.0]))


def own_slices(study: Study, arm: Arm, slices: Slices) -> Slices:
    """The real training slices of the arm's patients."""
    return slices.where(split="train", source="real", patient=arm_patients(study, slices, arm.fraction))


def _joined(parts: Sequence[Slices]) -> Slices:
    """Images and masks of all; tissues are no task."""
    return concatenate([Slices(part.images, part.masks, part.table) for part in parts])


def arm_rows(students: Sequence[Student], test: Slices, *, seed: int = 0, resamples: int = 1000
             ) -> list[dict[str, object]]:
    """Tidy rows of one arm from its students of several seeds: overlap, distance, misses, heart function.

    Raises:
        SplitError: if a student has met a test patient.
    """
    options = {"seed": seed, "resamples": resamples}
    rows = volumetric_rows([student.scores(test) for student in students], **options)
    rows += function_rows([student.function_errors(test) for student in students], **options)
    return with_system_columns(students[0].arm, rows)
