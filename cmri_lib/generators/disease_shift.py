"""Masks made from those of patients: moved towards a disease in a VAE's code (C4), or resampled to another cohort (C5).

Amirrajab, Al Khalil, Lorenz, Weese, Pluim & Breeuwer, "Pathology Synthesis of 3D-Consistent Cardiac MR Images using 2D
VAEs and GANs", MELBA 2023:010 (arXiv 2209.04223); Gheorghiță et al., "Improving robustness of automatic cardiac
function quantification from cine magnetic resonance imaging using synthetic image data", Scientific Reports 12:2391, 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cmri_lib.cohort.cardiac_function import SCAN, with_phenotypes
from cmri_lib.cohort.slices import PHENOTYPES, Slices
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.generators.base import batch_of, parts_on, training_batch
from cmri_lib.generators.label_maps import LabelMaps, label_map, masks_only
from cmri_lib.generators.vae import VAE
from cmri_lib.networks.conditioning.base import Batch

#: Masks encoded at once.
CHUNK = 64


@dataclass(frozen=True)
class Direction:
    """Phase → the step (latent,) between codes that leads from hearts of disease `source` to hearts of `target`."""

    source: str
    target: str
    steps: Mapping[str, Tensor]


def disease_direction(generator: LabelMaps, slices: Slices, source: str, target: str) -> Direction:
    """For each phase, mean code of `target` minus mean code of `source`, taken for each level of the heart and then averaged.

    A heart that contracts badly differs from a healthy one more in systole than in diastole, so each phase has a step of
    its own: one for both would dilate the heart and leave its ejection fraction. Apical, mid and basal slices have codes
    far apart, and a disease may come with more slices of one of them; within a level that makes no difference. Levels and
    phases that lack one of the diseases are left out. After the pathology synthesis of Amirrajab et al., with one
    difference: the step is the same for every heart, so that nothing varies but severity.

    Args:
        generator: a trained label VAE.
        slices: real slices of training or validation patients.

    Raises:
        SplitError: on slices of test or hold-out patients.
        DataError: if no level of a phase has both diseases.
        ParameterError: if the generator is no VAE.
    """
    codes = _codes(generator, generator.prepare(training_batch(slices, generator.conditioning)))
    disease = slices.table["disease"].to_numpy()
    found: dict[str, list[Tensor]] = {}
    for (phase, _), rows in slices.table.groupby(["phase", "level"]).indices.items():
        groups = [codes[rows[disease[rows] == name]] for name in (source, target)]
        if all(map(len, groups)):
            found.setdefault(phase, []).append(groups[1].mean(0) - groups[0].mean(0))
    if not found:
        raise DataError(f"no level has slices of both {source!r} and {target!r}", field="disease",
                        remedy=f"choose among {sorted(set(disease))}")
    return Direction(source, target, {phase: torch.stack(steps).mean(0) for phase, steps in found.items()})


@torch.no_grad()
def shift_to_disease(generator: LabelMaps, slices: Slices, direction: Direction, severity: float,
                     source: str = "C4 label VAE") -> Slices:
    """The masks of `slices` encoded, moved by `severity` times the step of their phase, and decoded; images are zeros.

    Severity 0 is the VAE's reconstruction, 1 the mean step; below 0 and above 1 it extrapolates. Patient and scan stay
    those of the mask, so whole scans stay whole, and audits know whom a mask resembles. The table gets `severity`, and
    where that is above 0 the direction's target as `disease`; it loses `PHENOTYPES`, which the step has changed.

    Raises:
        ParameterError: if the generator is no VAE, or severity is not finite.
        DataError: on a phase that has no step.
    """
    if not np.isfinite(severity):
        raise ParameterError(f"{severity}", field="severity", remedy="give a number, 0 for none")
    if strange := sorted(set(slices.table["phase"]) - set(direction.steps)):
        raise DataError(f"no step for {strange}", field="phase", remedy="teach the direction with slices of every phase")
    batch = generator.prepare(batch_of(slices, generator.conditioning))
    codes = _codes(generator, batch) + severity * torch.stack([direction.steps[phase] for phase in slices.table["phase"]])
    parts = [label_map(generator.prior.decoder(code.to(generator.device), part))
             for code, part in zip(codes.split(CHUNK), parts_on(generator.device, batch, CHUNK))]
    disease = direction.target if severity > 0 else slices.table["disease"]
    table = slices.table.drop(columns=list(PHENOTYPES), errors="ignore")
    return masks_only(np.concatenate(parts), table.assign(source=source, severity=float(severity), disease=disease))


@torch.no_grad()
def _codes(generator: LabelMaps, batch: Batch) -> Tensor:
    """(N, latent), on the CPU: the mean of each mask's code."""
    if not isinstance(generator.prior, VAE):
        raise ParameterError(f"{type(generator.prior).__name__} has no codes", field="generator",
                             remedy="give a label VAE")
    generator.eval()
    return torch.cat([generator.prior.encoder(part["image"], part)[0].cpu()
                      for part in parts_on(generator.device, batch, CHUNK)])


def uniform_ef(slices: Slices, count: int, seed: int, low: float = 10.0, high: float = 75.0) -> Slices:
    """`count` whole scans, drawn with replacement so that their LV ejection fraction is as uniform over low … high (%)
    as the cohort allows (`nearest_to_uniform`); images are zeros.

    Returns:
        each draw is a patient and scan of its own, ``ef-00000`` …; column `drawn_from` names the patient whose masks
        these are, and `split` stays his or hers. Tissues are kept. Columns of `with_phenotypes` are added.

    Raises:
        ParameterError: unless 0 ≤ low < high ≤ 100 and count ≥ 1.
        DataError: if no scan has both phases.
    """
    slices = with_phenotypes(slices)
    fractions = _fractions(slices)
    return _drawn(slices, fractions.index[nearest_to_uniform(fractions.to_numpy(), count, seed, low, high)], "C5 uniform EF")


def any_ef(slices: Slices, count: int, seed: int) -> Slices:
    """`count` whole scans drawn with replacement, each as likely as any other: what `uniform_ef` is compared with. Returns and
    raises as `uniform_ef`."""
    slices = with_phenotypes(slices)
    scans = _fractions(slices).index
    return _drawn(slices, scans[np.random.default_rng(seed).integers(len(scans), size=count)], "EF of the cohort")


def nearest_to_uniform(values: np.ndarray, count: int, seed: int, low: float = 10.0, high: float = 75.0) -> np.ndarray:
    """(count,) indices into `values` (N,), so that what they name is as uniform over low … high as it can be.

    One number is drawn in each of `count` equal parts of the range, and the value nearest to it is taken. Of all weightings
    of the values, this is in the limit the one at the least 1-Wasserstein distance to the uniform distribution: every
    bit of mass travels as little as it can. What is not there is not made up; extremes are repeated instead.

    Raises:
        ParameterError: unless 0 ≤ low < high ≤ 100 and count ≥ 1.
    """
    if not 0 <= low < high <= 100 or count < 1:
        raise ParameterError(f"{count} scans, EF {low} … {high} %", field="count",
                             remedy="give 0 <= low < high <= 100, count >= 1")
    generator = np.random.default_rng(seed)
    wanted = low + (high - low) * (np.arange(count) + generator.random(count)) / count
    return np.abs(np.asarray(values)[None] - wanted[:, None]).argmin(axis=1)


def _fractions(slices: Slices) -> pd.Series:
    """LV ejection fraction of every scan that has one."""
    found = slices.table.groupby(SCAN)["lvef"].first().dropna()
    if found.empty:
        raise DataError("no scan has an ejection fraction", field="phase", remedy="give the slices of both phases")
    return found


def _drawn(slices: Slices, scans: pd.Index, source: str) -> Slices:
    """The masks of `scans`, as often as they are named, each time as a patient and scan of its own."""
    rows_of = slices.table.groupby(SCAN).indices
    rows = [rows_of[scan] for scan in scans]
    names = np.repeat([f"ef-{i:05d}" for i in range(len(scans))], [len(r) for r in rows])
    drawn = slices.take(np.concatenate(rows))
    table = drawn.table.assign(drawn_from=drawn.patients, patient=names, scan=names, source=source)
    return masks_only(drawn.masks, table, drawn.tissues)
