"""What lowers memorisation, and what it costs (claim R7): one generator of few patients, and the same with one safeguard each.

Before the training its slices can be changed: augmented, freed of near duplicates, coarsened, or bared of what surrounds the
heart. During it, it can be stopped early. After it, samples can be refused. Whatever the safeguard, leakage is that of the
*same* real slices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt

from cmri_lib.cohort.slices import Slices, concatenate, known
from cmri_lib.config.study import Study
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.privacy_audit import PrivacyAudit
from cmri_lib.experiments.privacy_runs import STAGE, few_slices, own_folder, share_of_steps
from cmri_lib.experiments.training import train_or_load, training_folder, training_log, training_patients, training_slices
from cmri_lib.generators.base import Generator, draw
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.measures.statistics.bootstrap import Score, score_difference
from cmri_lib.measures.utility.downstream import pseudo_label, train_student, tstr_difference
from cmri_lib.privacy.attack import PatientScores, Sides, Target, auc_difference, membership_scores
from cmri_lib.privacy.copies import CopyAudit
from cmri_lib.privacy.nearest_neighbours import Pixels
from cmri_lib.reporting.primary_tests import ANATOMY, HEARTS
from cmri_lib.systems.register import system
from cmri_lib.systems.system import Run, Variant, file_name
from cmri_lib.training import Augment
from cmri_lib.training.batches import mixed_seed
from cmri_lib.training.checkpoint import load_weights
from cmri_lib.training.loop import snapshot_file

Found = TypeVar("Found")

#: The generator that is guarded.
SYSTEM = "U10 FM"
NONE, STOPPED, AUGMENTED, DEDUPLICATED, FILTERED, COARSE, BARE = (
    "none", "early stopping", "augmentation", "de-duplication", "filtered samples", "half the resolution", "heart alone")
#: Those that the claim names, and all, in the order of tables.
CLAIMED = (STOPPED, AUGMENTED, DEDUPLICATED, FILTERED)
SAFEGUARDS = (*CLAIMED, COARSE, BARE)
#: Augmented copies beside each slice; and samples drawn under one condition, of which the first that is no suspect is kept.
COPIES, DRAWS = 7, 4
#: What remains around the heart, in mm: the wall of the RV, which no mask holds, and a rim of its surroundings.
MARGIN = 6.0
#: Anatomy moves and the scanner's grey values change a little.
MOVED = Augment(rotation=15.0, scale=0.1, shift=0.05, gamma=0.1, contrast=0.05, noise=0.0)


# --- changes of the slices that are learnt from
def augmented(slices: Slices, copies: int = COPIES, seed: int = 0) -> Slices:
    """The slices, and `copies` moved copies of each."""
    given = {"image": torch.from_numpy(slices.images), "mask": torch.from_numpy(slices.masks)}
    parts = [Slices(slices.images, slices.masks, slices.table)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(copies):
            moved = MOVED(given)
            parts.append(Slices(moved["image"].numpy(), moved["mask"].numpy(), slices.table))
    return concatenate(parts)


def deduplicated(slices: Slices) -> Slices:
    """Slices of which no two are nearer to each other, in pixels, than any two of different patients are: nearer ones
    are the same heart, a slice or a phase further. Of such a pair the earlier row stays. Slices of one patient alone, which
    nothing can be compared with, all stay."""
    if len(np.unique(slices.patients)) < 2:
        return slices
    rows = slices.images.reshape(len(slices), -1).astype(np.float64)
    squares = (rows**2).sum(1)[:, None] + (rows**2).sum(1)[None] - 2 * rows @ rows.T
    least = np.where(slices.patients[:, None] == slices.patients[None], np.inf, squares).min()
    kept: list[int] = []
    for k in range(len(rows)):
        if not kept or squares[k, kept].min() >= least:
            kept.append(k)
    return slices.take(np.array(kept))


def coarse(slices: Slices) -> Slices:
    """Images as they are at half the resolution: means of 2 × 2 pixels, brought back to the size by linear interpolation."""
    small = F.avg_pool2d(torch.from_numpy(slices.images), 2)
    images = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    return Slices(images.numpy(), slices.masks, slices.table)


def heart_alone(slices: Slices) -> Slices:
    """Images that are black further than `MARGIN` from the heart of their mask; slices without one are left out."""
    kept = slices.take(slices.masks.any(axis=(1, 2)))
    away = np.stack([distance_transform_edt(mask == 0, sampling=spacing)
                     for mask, spacing in zip(kept.masks, known(kept.table, "spacing"))])
    return Slices(np.where(away[:, None] > MARGIN, np.float32(-1), kept.images), kept.masks, kept.table)


def safeguard_runs(study: Study, slices: Slices) -> dict[str, Run]:
    """Name → the training that it takes; early stopping and filtering take that of `NONE`."""
    settings = study.params.privacy
    chosen, patients = own_folder(system(SYSTEM)), training_patients(study, slices)[:settings.control.patients]
    few = partial(few_slices, patients=10**6, slices_each=settings.guarded.slices, seed=study.seed)
    changes = {NONE: few, AUGMENTED: partial(_after, few, partial(augmented, seed=study.seed)),
               DEDUPLICATED: partial(_after, few, deduplicated), COARSE: partial(_after, few, coarse),
               BARE: partial(_after, few, heart_alone)}
    steps = share_of_steps(study, chosen, settings.guarded.share)
    return {name: Run(chosen, patients, variant=Variant("unguarded" if name == NONE else name, change, steps))
            for name, change in changes.items()}


def _after(first: Callable[[Slices], Slices], second: Callable[[Slices], Slices], slices: Slices) -> Slices:
    some = first(slices)
    return second(some) if len(some) else some  # there may be no validation patients


class Safeguards:
    """``guards.differences(name)``: what a safeguard changes, with intervals.

    Args:
        audit: of the study; its copy detector and attacks are used.
    """

    def __init__(self, audit: PrivacyAudit):
        self.audit, self.study, self.slices = audit, audit.study, audit.slices
        self.runs = safeguard_runs(audit.study, audit.slices)
        self.evaluator = Evaluator(audit.study, audit.slices, audit.params.samples, "brief")
        self._found: dict[tuple[str, str], object] = {}

    @cached_property
    def members(self) -> Slices:
        """The real slices that all of them guard."""
        return training_slices(self.runs[NONE], self.slices)[0]

    def run(self, name: str) -> Run:
        """The training behind a safeguard."""
        return self.runs.get(name, self.runs[NONE])

    def samples(self, name: str) -> Slices:
        """Of the guarded generator, under the evaluator's conditions."""
        return self._guarded(name)[1]

    def stopped_at(self) -> int:
        """The step, of those whose weights were kept, with the least loss on validation patients; the last without any."""
        run = self.runs[NONE]
        settings = run.settings(self.study.params, self.study.seed)
        known = training_log(self.study, run).set_index("step")["validation_loss"].dropna()
        steps = [*settings.snapshot_steps(), settings.steps]
        losses = [known.iloc[np.abs(known.index - step).argmin()] for step in steps] if len(known) else [0.0] * len(steps)
        return steps[len(steps) - 1 - int(np.argmin(losses[::-1]))]

    def _once(self, what: str, name: str, make: Callable[[], Found]) -> Found:
        """Every safeguard is compared with none: what was found of it is kept."""
        if (what, name) not in self._found:
            self._found[what, name] = make()
        return self._found[what, name]

    def _guarded(self, name: str) -> tuple[Generator, Slices]:
        return self._once("generator", name, lambda: self._load(name))

    def _load(self, name: str) -> tuple[Generator, Slices]:
        run = self.run(name)
        generator = train_or_load(self.study, run, self.slices)
        settings = run.settings(self.study.params, self.study.seed)
        if name == STOPPED and self.stopped_at() < settings.steps:
            load_weights(generator, snapshot_file(training_folder(self.study, run), self.stopped_at()))
        return generator, self._filtered(generator) if name == FILTERED else self.evaluator.bank(run, generator)

    def _filtered(self, generator: Generator) -> Slices:
        """Of several samples under each condition the first that no pixel audit suspects; of suspects alone the furthest."""
        conditions, seed, space = self.evaluator.conditions, self.study.seed, Cached(Pixels())
        banks = [self.samples(NONE), *(draw(generator, conditions, SYSTEM, seed=mixed_seed(seed, k)) for k in range(1, DRAWS))]
        audits = [self.audit.copy_audit(bank, self.members, space) for bank in banks]
        distance, suspect = (np.stack(values) for values in zip(*((a.distance, a.suspects) for a in audits)))
        chosen = np.where(suspect.all(axis=0), distance.argmax(axis=0), suspect.argmin(axis=0))
        images = np.stack([bank.images for bank in banks])[chosen, np.arange(len(conditions))]
        return Slices(images, banks[0].masks, banks[0].table)

    # --- leakage, fidelity and utility
    def copies(self, name: str) -> CopyAudit:
        """Copies of the guarded slices among the samples, in the copy detector's space."""
        return self._once("copies", name, lambda: self.audit.copy_audit(self.samples(name), self.members))

    def attack(self, name: str) -> PatientScores:
        """The loss attack on the weights, by patient."""
        sides = Sides(few_slices(self.members, 10**6, self.audit.params.slices, self.study.seed), self.audit.nonmembers)
        target = Target(f"{SYSTEM}, {name}", frozenset(self.members.patients), self._guarded(name)[0], self.samples(name))
        return membership_scores(self.audit.loss, target, sides, seed=self.study.seed)["mean"]

    def student(self, name: str) -> Cached:
        """A segmenter of the samples, which the frozen segmenter has labelled. Nobody's mask is in them: no test
        patient's either, although the table says under whose conditions they were drawn."""
        samples = pseudo_label(self.evaluator.segmenter, self.samples(name)).with_columns(split="train")
        settings = replace(self.study.params.conditional.student, seed=self.study.seed)
        return train_student(samples, settings, self.study.work(STAGE) / "guarded-students" / file_name(name))

    def differences(self, name: str) -> Mapping[str, Score]:
        """Metric → the guarded generator minus the unguarded. The attack on weights is left out where they are the same."""
        options, both = self.audit.options, (self.samples(name), self.samples(NONE))
        found = {"swapped_share_copy": score_difference(*(self.copies(one).swapped_share() for one in (name, NONE))),
                 "near_copy_excess_copy": score_difference(*(self.copies(one).near_copy_excess() for one in (name, NONE)))}
        if name != FILTERED:
            found["attack_auc_loss"] = auc_difference([self.attack(name)], [self.attack(NONE)], **options)
        found |= {metric: self.evaluator.difference(*both, metric) for metric in (ANATOMY, HEARTS)}
        found["downstream_dice"] = tstr_difference(self.evaluator.test, *(self.student(one) for one in (name, NONE)), **options)
        return found
