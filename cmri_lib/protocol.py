"""The common protocol: what every notebook measures with and on, so that systems can be compared at all.

One set of preprocessed slices, one split, one set of frozen instruments, one choice of conditions to sample under.
Each instrument is trained by notebook 01 and loaded, by the same call, wherever it is asked for again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from cmri_lib.cohort.case import Case
from cmri_lib.cohort.detector import Detector, train_detector
from cmri_lib.cohort.preprocess import PreprocessSettings
from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError
from cmri_lib.generators.base import Generator, draw, training_batch
from cmri_lib.generators.flow import FlowSettings
from cmri_lib.generators.systems import System
from cmri_lib.measures.classical_features import ClassicalFeatures
from cmri_lib.measures.features import Remembered, train_features
from cmri_lib.measures.segmenter import Segmenter, train_segmenter
from cmri_lib.networks.unet import UNetSettings
from cmri_lib.study import Study, build
from cmri_lib.training import TrainSettings, train


@dataclass(frozen=True)
class CohortSettings:
    """What to do with a bad scan: "stop", or "skip" and list it in the report."""

    on_bad_case: Literal["stop", "skip"]


@dataclass(frozen=True)
class InstrumentSettings:
    """How the frozen networks are trained."""

    detector: TrainSettings
    segmenter: TrainSettings
    features: TrainSettings


@dataclass(frozen=True)
class FewSteps:
    """Network evaluations per image at which samplers are compared, and images drawn at each."""

    evaluations: tuple[int, ...]
    images: int


@dataclass(frozen=True)
class FlowParameters:
    """Section `flow`."""

    network: UNetSettings
    objective: FlowSettings
    training: TrainSettings
    few_steps: FewSteps


@dataclass(frozen=True)
class FidelitySettings:
    """Bootstrap draws of patients, and random groups of patients behind each floor."""

    resamples: int
    repeats: int


@dataclass(frozen=True)
class Parameters:
    """All of ``params.yaml`` below profile, dataset, seed and device."""

    cohort: CohortSettings
    preprocess: PreprocessSettings
    instruments: InstrumentSettings
    samples: int
    flow: FlowParameters
    fidelity: FidelitySettings


def open_study(profile: str | None = None, dataset: str | None = None, root: Path | None = None
               ) -> tuple[Study, Parameters]:
    """The study as ``params.yaml`` describes it; arguments that are given override it.

    Raises:
        ParameterError: on any unknown, missing or mistyped key, wherever it stands, before anything is computed.
    """
    study = Study.open(profile, dataset, root)
    return study, build(Parameters, study.values, "params")


def load_slices(study: Study) -> Slices:
    """The preprocessed cohort that notebook 01 saved."""
    return Slices.load(study.work("slices"))


def _settings(study: Study, name: str) -> TrainSettings:
    return study.settings(f"instruments.{name}", TrainSettings, seed=study.seed)


def detector(study: Study, training_cases: Sequence[Case]) -> Detector:
    """The region detector, trained or loaded."""
    return train_detector(training_cases, study.work("instruments") / "detector", _settings(study, "detector"))


def segmenter(study: Study, slices: Slices) -> Segmenter:
    """The frozen segmenter, trained on the real training slices or loaded."""
    folder = study.work("instruments") / "segmenter"
    return train_segmenter(slices.where(split="train", source="real"), _settings(study, "segmenter"), folder)


def feature_spaces(study: Study, slices: Slices) -> list[Remembered]:
    """The study's own frozen features and the training-free ones."""
    folder = study.work("instruments") / "features"
    learnt = train_features(slices.where(split="train", source="real"), _settings(study, "features"), folder)
    return [Remembered(learnt), Remembered(ClassicalFeatures())]


def sampling_conditions(slices: Slices, samples: int, seed: int, split: str = "test") -> Slices:
    """About `samples` slices of `split` to draw synthetic ones for: whole phases of scans in random order, and all of
    them again if there are too few. At least one phase of every patient comes before any second one.

    Raises:
        DataError: if the split is empty.
    """
    table = slices.table[(slices.table["split"] == split).to_numpy()]
    if table.empty:
        raise DataError(f"no slices of split {split!r}", field="split", remedy="check the list of patients")
    generator = np.random.default_rng(seed)
    volumes = [part.index.to_numpy() for _, part in table.groupby(["scan", "phase"], sort=True)]
    volumes = [volumes[i] for i in generator.permutation(len(volumes))]
    seen: dict[str, int] = {}
    turn = []
    for volume in volumes:
        patient = table.loc[volume[0], "patient"]
        turn.append(seen.setdefault(patient, 0))
        seen[patient] += 1
    order = [volumes[i] for i in np.argsort(turn, kind="stable")]
    chosen: list[np.ndarray] = []
    while sum(map(len, chosen)) < samples:
        chosen.append(order[len(chosen) % len(order)])
    return slices.take(np.concatenate(chosen))


def trained(study: Study, system: System, slices: Slices) -> Generator:
    """`system`, trained on the training patients or loaded if that has been done."""
    generator = system.build(study)
    settings = study.settings(f"{system.section}.training", TrainSettings, seed=study.seed)
    train(generator, training_batch(slices.where(split="train"), generator.conditioning), settings,
          study.work(system.section) / system.folder,
          validation=training_batch(slices.where(split="validation"), generator.conditioning))
    return generator


def sample_bank(study: Study, system: System, generator: Generator, conditions: Slices) -> Slices:
    """Draw the bank of samples of `system` that all later notebooks share, and save it."""
    bank = draw(generator, conditions, system.id, seed=study.seed)
    bank.save(bank_folder(study, system))
    return bank


def bank_folder(study: Study, system: System) -> Path:
    """Where the samples of `system` lie."""
    return study.work("banks") / system.folder


def load_bank(study: Study, system: System) -> Slices:
    """The bank that the system's own notebook drew."""
    return Slices.load(bank_folder(study, system))


def device_of(generator: Generator) -> torch.device:
    """Where a generator's weights are."""
    return next(generator.parameters()).device
