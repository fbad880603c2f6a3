"""Everything that `params.yaml` may say, typed: one dataclass per section, checked as a whole before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cmri_lib.cohort.preprocess import PreprocessSettings
from cmri_lib.generators.diffusion import DiffusionSettings
from cmri_lib.generators.flow import FlowSettings
from cmri_lib.generators.gan import GANSettings
from cmri_lib.networks.adversarial import AdversarialSettings
from cmri_lib.networks.unet import UNetSettings
from cmri_lib.study import Study, build
from cmri_lib.training import TrainSettings


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
    """Network evaluations per image at which samplers are compared."""

    evaluations: tuple[int, ...]


@dataclass(frozen=True)
class FlowParameters:
    """Section `flow`."""

    network: UNetSettings
    objective: FlowSettings
    training: TrainSettings
    few_steps: FewSteps


@dataclass(frozen=True)
class SamplerSteps:
    """Network evaluations per image at which each of the diffusion samplers is shown."""

    ddpm: tuple[int, ...]
    ddim: tuple[int, ...]
    dpm_solver: tuple[int, ...]


@dataclass(frozen=True)
class DiffusionParameters:
    """Section `diffusion`."""

    network: UNetSettings
    objective: DiffusionSettings
    training: TrainSettings
    few_steps: SamplerSteps


@dataclass(frozen=True)
class AdversarialSection:
    """Sections `gan.dcgan` and `gan.wgan_gp`."""

    network: AdversarialSettings
    objective: GANSettings
    training: TrainSettings


@dataclass(frozen=True)
class GANParameters:
    """Section `gan`."""

    dcgan: AdversarialSection
    wgan_gp: AdversarialSection


@dataclass(frozen=True)
class FidelitySettings:
    """Bootstrap draws of patients, and random groups of patients behind each floor."""

    resamples: int
    repeats: int


@dataclass(frozen=True)
class CurveSettings:
    """Samples drawn at every point of a curve; numbers of training patients besides all of them."""

    images: int
    patients: tuple[int, ...]


@dataclass(frozen=True)
class Parameters:
    """All of ``params.yaml`` below profile, dataset, seed and device."""

    cohort: CohortSettings
    preprocess: PreprocessSettings
    instruments: InstrumentSettings
    samples: int
    flow: FlowParameters
    gan: GANParameters
    diffusion: DiffusionParameters
    fidelity: FidelitySettings
    curves: CurveSettings


def open_study(profile: str | None = None, dataset: str | None = None, root: Path | None = None
               ) -> tuple[Study, Parameters]:
    """The study as ``params.yaml`` describes it; arguments that are given override it.

    Raises:
        ParameterError: on any unknown, missing or mistyped key, wherever it stands, before anything is computed.
    """
    study = Study.open(profile, dataset, root)
    return study, build(Parameters, study.values, "params")
