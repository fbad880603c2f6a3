"""Everything that `params.yaml` may say, typed: one dataclass per section, checked as a whole before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cmri_lib.cohort.preprocessing.pipeline import PreprocessSettings
from cmri_lib.config.study import Study, build
from cmri_lib.generators.diffusion import DiffusionSettings
from cmri_lib.generators.flow import FlowSettings
from cmri_lib.generators.gan import GANSettings
from cmri_lib.generators.masked import MaskedSettings
from cmri_lib.generators.vae import VAEObjective
from cmri_lib.networks.adversarial import AdversarialSettings
from cmri_lib.networks.autoencoder import KLSettings, VQSettings
from cmri_lib.networks.mask_to_image import MaskToImageSettings
from cmri_lib.networks.progressive import ProgressiveSettings
from cmri_lib.networks.stylegan import StyleGANSettings
from cmri_lib.networks.transformer import TransformerSettings
from cmri_lib.networks.unet import UNetSettings
from cmri_lib.networks.vae import VAESettings
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
class ProgressiveSection:
    """Section `gan.progressive`."""

    network: ProgressiveSettings
    objective: GANSettings
    training: TrainSettings


@dataclass(frozen=True)
class StyleGANSection:
    """Section `gan.stylegan2`."""

    network: StyleGANSettings
    objective: GANSettings
    training: TrainSettings


@dataclass(frozen=True)
class GANParameters:
    """Section `gan`."""

    dcgan: AdversarialSection
    wgan_gp: AdversarialSection
    progressive: ProgressiveSection
    stylegan2: StyleGANSection


@dataclass(frozen=True)
class VAEParameters:
    """Sections `vae`, `masks.vae` and `conditional.domain_vae`, the first stage of C14."""

    network: VAESettings
    objective: VAEObjective
    training: TrainSettings


@dataclass(frozen=True)
class KLSection:
    """Section `latent.kl`: the first stage of U7 LDM-KL and U8."""

    network: KLSettings
    training: TrainSettings


@dataclass(frozen=True)
class VQSection:
    """Section `latent.vq`: the first stage of U7 LDM-VQ and U9."""

    network: VQSettings
    training: TrainSettings


@dataclass(frozen=True)
class LatentUNetSection:
    """Sections `latent.ldm_kl` and `latent.ldm_vq`."""

    network: UNetSettings
    objective: DiffusionSettings
    training: TrainSettings


@dataclass(frozen=True)
class DiTSection:
    """Section `latent.dit`."""

    network: TransformerSettings
    objective: DiffusionSettings
    training: TrainSettings


@dataclass(frozen=True)
class MaskedSection:
    """Section `latent.maskgit`."""

    network: TransformerSettings
    objective: MaskedSettings
    training: TrainSettings


@dataclass(frozen=True)
class LatentParameters:
    """Section `latent`: two first stages, and the priors on their latents and tokens."""

    kl: KLSection
    vq: VQSection
    ldm_kl: LatentUNetSection
    ldm_vq: LatentUNetSection
    dit: DiTSection
    maskgit: MaskedSection


@dataclass(frozen=True)
class ToldSection:
    """Sections `conditional.pix2pix`, `gan`, `gan_cell` and `covariate`."""

    network: MaskToImageSettings
    objective: GANSettings
    training: TrainSettings


@dataclass(frozen=True)
class FurtherTraining:
    """Sections of `conditional` of which only the training is their own: the network is the unconditional system's."""

    training: TrainSettings


@dataclass(frozen=True)
class ConditionalParameters:
    """Section `conditional`; `samples` are drawn from every cell of the ablation, `bank` from
    every system of the review, `draws` under each of `masks` masks."""

    pix2pix: ToldSection
    gan: ToldSection
    gan_cell: ToldSection
    covariate: ToldSection
    denoiser: FurtherTraining
    denoiser_cell: FurtherTraining
    latent: FurtherTraining
    tokens: FurtherTraining
    classes: FurtherTraining
    classes_kl: KLSection
    domain_vae: VAEParameters
    learner: TrainSettings
    samples: int
    bank: int
    draws: int
    masks: int
    guidance: tuple[float, ...]
    label_noise: tuple[float, ...]
    patients: tuple[float, ...]


@dataclass(frozen=True)
class MaskDiffusionSection:
    """Section `masks.diffusion`: C10's first half; `shrink` as in `LabelMaps`."""

    shrink: int
    network: UNetSettings
    objective: DiffusionSettings
    training: TrainSettings


@dataclass(frozen=True)
class MaskParameters:
    """Section `masks`: generators of label maps; severities of C4's moves, range (%) of C5's ejection fractions."""

    severities: tuple[float, ...]
    ejection: tuple[float, float]
    vae: VAEParameters
    diffusion: MaskDiffusionSection


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

    workers: int
    cohort: CohortSettings
    preprocess: PreprocessSettings
    instruments: InstrumentSettings
    samples: int
    vae: VAEParameters
    gan: GANParameters
    diffusion: DiffusionParameters
    latent: LatentParameters
    flow: FlowParameters
    conditional: ConditionalParameters
    masks: MaskParameters
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
