"""The samples of an arm: under whose masks they are drawn, and the banks in which they are kept.

A bank belongs to a generator, the patients whose masks it follows, and a seed. Arms that share these share
the bank, whatever their number of samples: the first samples of a bank are the same however many follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cmri_lib.cohort.cardiac_function import SCAN
from cmri_lib.cohort.requirements import HEALTHY
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.experiments.arms import Arm, generator_patients, own_patients, own_slices
from cmri_lib.experiments.banks import drawing_digest, kept_bank, sampling_conditions
from cmri_lib.experiments.mask_screening import sample_valid_masks
from cmri_lib.experiments.provenance import refuse_seen
from cmri_lib.experiments.training import train_or_load, training_folder
from cmri_lib.generators.base import Generator, draw
from cmri_lib.generators.disease_shift import disease_direction, shift_to_disease, uniform_ef
from cmri_lib.measures.anatomy.adherence import Segment, dice
from cmri_lib.measures.anatomy.validity import Ranges, validity
from cmri_lib.systems.system import Run, file_name
from cmri_lib.training.batches import mixed_seed
from cmri_lib.training.fingerprint import code_digest, digest

#: If fewer drawn masks pass the screen, all of them are used: a handful says nothing of the generator.
FEWEST_MASKS = 10
#: (Weights, their time, parameters) → digest, of the generators that this process has loaded: arms share them.
_DIGESTS: dict[tuple[Path, int, str], str] = {}


@dataclass(frozen=True)
class Bank:
    """Samples on disk.

    Attributes:
        folder: where they lie; arms with equal folders share them.
        count: how many the arm asks for.
    """

    folder: Path
    count: int


def arm_bank(study: Study, arm: Arm, slices: Slices, seed: int, candidate: int = 0) -> Bank:
    """The bank of an arm's samples drawn with `seed`; one for each of its candidates."""
    own = own_slices(study, arm, slices)
    count = max(1, round(arm.factor * len(own)))
    source = arm.masks.folder if arm.masks else "uniform ef" if arm.ejection else ""
    masks = source and f"{source}-{count}"
    group = "" if arm.group is None else arm.group.name
    parts = (arm.images.folder, group, f"{len(own_patients(study, arm, slices))} patients", arm.disease or "",
             " ".join(arm.vendors), masks, f"seed {seed}", f"candidate {candidate + 1}" if candidate else "")
    return Bank(study.work("banks") / arm.stage / file_name("-".join(filter(None, parts))), count)


def load_or_draw(study: Study, arm: Arm, slices: Slices, seed: int, candidate: int = 0) -> Slices:
    """The samples of an arm as its generators draw them: labelled by their masks alone, not selected.

    Raises:
        SplitError: if a generator has seen a patient whom the arm may not use, before anything is trained.
        DataError: if the arm has no patient of the disease it asks for.
    """
    refuse_generators(study, arm, slices)
    own, choices = own_slices(study, arm, slices), sampler_choices(study, arm)
    asked = (arm.disease, arm.vendors, seed, candidate, sorted(choices.items()), *([arm.ejection] if arm.ejection else []))
    chosen = [arm_conditions] if arm.masks or arm.ejection else []
    key = digest([repr(asked).encode(), own.images.tobytes(), own.masks.tobytes(),
                  *(run_digest(study, run, slices).encode() for run in arm.runs),
                  code_digest(draw, sampling_conditions, *chosen).encode()])
    bank = arm_bank(study, arm, slices, seed, candidate)

    def make(count: int) -> Slices:
        images, *masks = (train_or_load(study, run, slices) for run in arm.runs)
        conditions = arm_conditions(arm, own, count, seed, *masks)
        return draw(images, conditions, arm.images.id, seed=mixed_seed(seed, candidate), **choices)

    return kept_bank(bank.folder, key, bank.count, make)


def run_digest(study: Study, run: Run, slices: Slices) -> str:
    """`drawing_digest` of a run; its network is loaded for it once per process."""
    file = training_folder(study, run) / "weights.safetensors"
    asked = repr((study.params, run.settings(study.params, study.seed)))  # a variant has settings of its own
    if not file.exists() or (file, file.stat().st_mtime_ns, asked) not in _DIGESTS:
        digested = drawing_digest(train_or_load(study, run, slices))
        _DIGESTS[file, file.stat().st_mtime_ns, asked] = digested
    return _DIGESTS[file, file.stat().st_mtime_ns, asked]


def refuse_generators(study: Study, arm: Arm, slices: Slices) -> None:
    """Raise SplitError if a generator of the arm has seen a patient whom it may not use."""
    for run in arm.runs:
        refuse_seen(run, slices, generator_patients(study, arm, slices), arm.id)


def arm_conditions(arm: Arm, own: Slices, count: int, seed: int, masks: Generator | None = None) -> Slices:
    """`count` masks for the samples of an arm, and what else they are conditioned on.

    Whole phases of scans of its patients, or whole scans whose ejection fractions are spread evenly; or masks drawn by
    `masks`, and those that are no heart drawn anew; or masks of healthy patients that `masks` moves to the arm's disease,
    without those that are no heart then. The vendors that the arm names take turns, a phase of a scan each.

    Args:
        own: the real slices of the arm's patients.

    Raises:
        DataError: if none of them has the disease, or none an ejection fraction that is asked for.
    """
    moved = arm.disease is not None and masks is not None
    group = HEALTHY if moved else arm.disease
    of_group = own if group is None else own.where(disease=group)
    if not len(of_group):
        raise DataError(f"{arm.id} has no patient of the group {group}", field="disease",
                        remedy=f"choose among {sorted(set(own.table['disease']))}, or give it more patients")
    conditions = (sampling_conditions(of_group, count, seed, split="train") if arm.ejection is None else
                  _of_even_ejection(of_group, count, seed, arm.ejection)).take(np.arange(count))
    if arm.vendors:
        conditions = conditions.with_columns(vendor=in_turn(arm.vendors, conditions.table))
    if masks is None:
        return conditions
    ranges = Ranges.of(own)
    if moved:
        direction = disease_direction(masks, own, HEALTHY, arm.disease)
        found = shift_to_disease(masks, conditions, direction, 1.0, arm.masks.id)
        valid = validity(found.masks, found.table, ranges)["valid"].to_numpy()
        found = found.take(valid) if valid.sum() >= FEWEST_MASKS else found
    else:
        found = sample_valid_masks(masks, conditions, arm.masks.id, ranges, seed, fewest=FEWEST_MASKS)
    return found.take(np.arange(count) % len(found))


def _of_even_ejection(own: Slices, count: int, seed: int, limits: tuple[float, float]) -> Slices:
    """As few scans of uniform ejection fraction as hold `count` slices."""
    scans = count // int(own.table.groupby(SCAN).size().max())
    while len(found := uniform_ef(own, max(1, scans), seed, *limits)) < count:
        scans += 1
    return found


def in_turn(vendors: Sequence[str], table: pd.DataFrame) -> np.ndarray:
    """(N,) a vendor for every slice: the next one with every change of scan or phase, so that stacks stay whole."""
    volume = table["scan"].astype(str) + " " + table["phase"].astype(str)
    turn = (volume != volume.shift()).cumsum().to_numpy() - 1
    return np.array(vendors, object)[turn % len(vendors)]


def sampler_choices(study: Study, arm: Arm) -> dict[str, object]:
    """For the sampler: flows take as many steps as the parameters say, others have their own number."""
    return {"steps": study.params.utility.sampling_steps} if arm.images.family == "flow" else {}


def most_adherent(banks: list[Slices], segment: Segment) -> Slices:
    """Of several samples under each mask that in which `segment` finds the mask best, by mean Dice.

    Chosen mask by mask, not from the whole set, so that levels and phases stay as they were: apical slices
    score lower. Raises ParameterError if the samples follow no mask.
    """
    if not banks[0].masks.any():
        raise ParameterError(f"samples of {banks[0].table['source'].iloc[0]} follow no mask", field="candidates",
                             remedy="give 1")
    found = np.array([[_slice_dice(*pair) for pair in zip(segment(bank.images), bank.masks)]
                      for bank in banks])
    best, rows = found.argmax(axis=0), np.arange(len(banks[0]))
    images = np.stack([bank.images for bank in banks])[best, rows]
    return Slices(images, banks[0].masks, banks[0].table, banks[0].tissues)


def _slice_dice(seen: np.ndarray, mask: np.ndarray) -> float:
    """Mean over the labels that are in either; 0 without any."""
    labels = np.union1d(seen, mask)
    return float(np.mean([dice(seen == label, mask == label) for label in labels[labels > 0]] or [0.0]))


def one_scan_each(slices: Slices) -> Slices:
    """Of patients who were scanned several times the first scan alone, so that each counts once."""
    first = slices.table.groupby("patient")["scan"].transform("min")
    return slices.take(slices.table["scan"].eq(pd.Series(first)).to_numpy())
