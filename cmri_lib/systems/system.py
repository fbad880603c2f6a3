"""What a system of the review is: a network, an objective, a sampler and a conditioning, and what its training starts from.

`System` describes, `Run` names one training of it: on which patients, with which seed, in which variant. Weights, banks
of samples and rows of the tables bear the run's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.parameters import Parameters
from cmri_lib.generators.base import Generator, training_batch
from cmri_lib.networks.conditioning.base import Batch, Conditioning
from cmri_lib.training import TrainSettings
from cmri_lib.training.fingerprint import digest

Make = Callable[[Parameters, Vocabulary], Generator]
Training = Callable[[Parameters], TrainSettings]
Reading = Callable[[Slices, Conditioning, Parameters], Batch]


def file_name(text: str) -> str:
    """Lower case, with hyphens for all but letters and digits: ``u10-fm-mask``."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def slice_by_slice(slices: Slices, conditioning: Conditioning, params: Parameters) -> Batch:
    """What nearly every system learns from: a row for each slice, see `generators.base.training_batch`."""
    return training_batch(slices, conditioning)


@dataclass(frozen=True)
class FirstStage:
    """An autoencoder that is trained before the generator, and shared by all systems that name it.

    Attributes:
        name: of its folder. stage: the notebook's folder in which it lies. training: its settings.
    """

    name: str
    stage: str
    training: Training


@dataclass(frozen=True)
class System:
    """One row of the study.

    Attributes:
        id: begins with the review's id.
        family, conditioning: columns of the result tables.
        stage: folder of everything that the system's notebook trains.
        training: its settings.
        make: the untrained generator from the study's parameters and the cohort's vocabulary.
        first_stage: what must be trained before.
        pretrained: a system whose trained networks this one starts from, instead of from random weights alone.
        withheld: (disease, vendor) of slices that it never learns from.
        slices: what it learns from of a cohort, if not all: some vendors' slices, or pairs of images.
        batch: the tensors that it trains on: a row for each slice, or for each whole stack.
    """

    id: str
    family: str
    conditioning: str
    stage: str
    training: Training
    make: Make
    first_stage: FirstStage | None = None
    pretrained: System | None = None
    withheld: tuple[tuple[str, str], ...] = ()
    slices: Callable[[Slices], Slices] | None = None
    batch: Reading = slice_by_slice

    def build(self, params: Parameters, vocabulary: Vocabulary, seed: int) -> Generator:
        """The generator with initial weights drawn from `seed`."""
        torch.manual_seed(seed)
        return self.make(params, vocabulary)


@dataclass(frozen=True)
class Variant:
    """What is different about a training: its name, what it does to the slices it learns from, fields of `TrainSettings`."""

    name: str = ""
    slices: Callable[[Slices], Slices] | None = None
    training: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One training: a system × the patients it learns from × a seed × a variant.

    Attributes:
        patients: names of training patients; None for all of them.
        seed: of initial weights and of training; None for the study's.
        pretrained: the run to start from, in place of `system.pretrained` trained on the same patients with the same seed.
    """

    system: System
    patients: tuple[str, ...] | None = None
    seed: int | None = None
    variant: Variant = Variant()
    pretrained: Run | None = None

    @property
    def id(self) -> str:
        """The system's id, followed by what distinguishes this run."""
        patients = "" if self.patients is None else f"{len(self.patients)} patients"
        seed = "" if self.seed is None else f"seed {self.seed}"
        return ", ".join(filter(None, (self.system.id, patients, seed, self.variant.name)))

    @property
    def family(self) -> str:
        return self.system.family

    @property
    def conditioning(self) -> str:
        return self.system.conditioning

    @property
    def stage(self) -> str:
        return self.system.stage

    @property
    def folder(self) -> str:
        """A name for files that no other run of the study bears."""
        return self._file_name(self.system.id, self.variant.name)

    @property
    def first_stage_folder(self) -> str:
        """A name for files of the first stage: shared by all systems, but by none that learns from others."""
        return self._file_name(self.system.first_stage.name, self.variant.name if self.variant.slices else "")

    @property
    def start(self) -> Run | None:
        """The run whose trained networks this one starts from."""
        if self.pretrained is not None or self.system.pretrained is None:
            return self.pretrained
        return Run(self.system.pretrained, self.patients, self.seed)

    def settings(self, params: Parameters, seed: int) -> TrainSettings:
        """Those of the system with what the variant changes, and `seed` unless the run has its own."""
        return self._seeded(self.system.training(params), seed, self.variant.training)

    def first_stage_settings(self, params: Parameters, seed: int) -> TrainSettings:
        """Those of the first stage."""
        return self._seeded(self.system.first_stage.training(params), seed, {})

    def _seeded(self, settings: TrainSettings, seed: int, changes: Mapping[str, object]) -> TrainSettings:
        return replace(settings, **changes, seed=seed if self.seed is None else self.seed)

    def _file_name(self, name: str, variant: str) -> str:
        parts = [file_name(name)]
        if self.patients is not None:
            parts.append(f"{len(self.patients)}-patients-{digest(p.encode() + b'/' for p in sorted(self.patients))[:6]}")
        parts += [] if self.seed is None else [f"seed-{self.seed}"]
        return "-".join([*parts, *filter(None, [file_name(variant)])])


def runs(systems: Sequence[System] | Mapping[str, System], **which: object) -> list[Run]:
    """A `Run` of each system; `which` are fields of `Run`."""
    return [Run(system, **which) for system in (systems.values() if isinstance(systems, Mapping) else systems)]
