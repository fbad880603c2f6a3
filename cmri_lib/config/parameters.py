"""Everything that `params.yaml` may say, typed: one dataclass per section. `config.reading` fills and checks it."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from cmri_lib.cohort.data_sets import PLAIN_NAME
from cmri_lib.cohort.preprocessing.pipeline import PreprocessSettings
from cmri_lib.config.contrast import ContrastSettings
from cmri_lib.config.cross_vendor import CrossVendorSettings
from cmri_lib.config.differential_privacy import DifferentialPrivacySettings
from cmri_lib.config.kinds import Count, Counts, Share
from cmri_lib.config.measuring import CurveSettings, FidelitySettings, InstrumentSettings, TeachingSettings, UtilitySettings
from cmri_lib.config.privacy import PrivacySettings
from cmri_lib.config.translation import TranslationSettings
from cmri_lib.config.volumes import VolumeSettings
from cmri_lib.errors import ParameterError
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
from cmri_lib.training import AdversarialTraining, TrainSettings


@dataclass(frozen=True)
class CohortSettings:
    """What to do with a bad scan: "stop", or "skip" and list it in the report. `share` of the patients of each split,
    vendor and disease are used. Ways of preprocessing are compared on every `compare_every`-th scan."""

    on_bad_case: Literal["stop", "skip"]
    share: Share
    compare_every: Count


@dataclass(frozen=True)
class ToySettings:
    """Training steps of the toys in the plane."""

    steps: Count


@dataclass(frozen=True)
class FewSteps:
    """Network evaluations per image at which samplers are compared."""

    evaluations: Counts


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

    ddpm: Counts
    ddim: Counts
    dpm_solver: Counts


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

    def __post_init__(self) -> None:
        if self.objective.latent < 2:
            raise ParameterError(f"{self.objective.latent}", field="gan.stylegan2.objective.latent",
                                 remedy="give at least 2: the noise of an image is seeded by the first two numbers of its z")


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

    def sides(self, size: int) -> dict[str, int]:
        """Of what networks see that do not see images of `size`: latents."""
        kl, vq = self.kl.network.side(size), self.vq.network.side(size)
        return {"ldm_kl": kl, "dit": kl, "ldm_vq": vq, "maskgit": vq}


@dataclass(frozen=True)
class ConditionalGANSection:
    """Sections `conditional.pix2pix`, `pix2pix_hd`, `gan`, `gan_ablation` and `covariate`."""

    network: MaskToImageSettings
    objective: GANSettings
    training: AdversarialTraining


@dataclass(frozen=True)
class FineTuning:
    """Sections of `conditional` of which only the training is their own: the network is the unconditional system's."""

    training: TrainSettings


@dataclass(frozen=True)
class ConditionalParameters:
    """Section `conditional`; `contents` of the mask make the ablation, of whose systems `samples` are drawn, `bank` of
    every system of the review, `draws` under each of `masks` masks; `guidance` lists scales of classifier-free
    guidance, `label_noise` root mean square errors in mm, `patients` shares of the training patients."""

    pix2pix: ConditionalGANSection
    pix2pix_hd: ConditionalGANSection
    gan: ConditionalGANSection
    gan_ablation: ConditionalGANSection
    covariate: ConditionalGANSection
    denoiser: FineTuning
    denoiser_ablation: FineTuning
    latent: FineTuning
    tokens: FineTuning
    classes: FineTuning
    classes_kl: KLSection
    domain_vae: VAEParameters
    student: TrainSettings
    contents: tuple[Literal["cavity", "labels", "tissues"], ...]
    samples: Count
    bank: Count
    draws: Count
    masks: Count
    guidance: tuple[float, ...]
    label_noise: tuple[float, ...]
    patients: tuple[Share, ...]


@dataclass(frozen=True)
class MaskDiffusionSection:
    """Section `masks.diffusion`: C10's first half; `shrink` as in `LabelMaps`."""

    shrink: Count
    network: UNetSettings
    objective: DiffusionSettings
    training: TrainSettings

    def refuse(self, size: int) -> None:
        """Raises ParameterError if planes of size × size pixels cannot be shrunk so."""
        if size % self.shrink:
            raise ParameterError(f"{self.shrink} for images of {size}²", field="shrink", remedy="give a divisor of the side")

    def sides(self, size: int) -> dict[str, int]:
        """Of the planes that the network sees."""
        return {"network": size // self.shrink}


@dataclass(frozen=True)
class MaskParameters:
    """Section `masks`: generators of label maps; severities of C4's moves, range (%) of C5's ejection fractions."""

    severities: tuple[float, ...]
    ejection: tuple[float, float]
    vae: VAEParameters
    diffusion: MaskDiffusionSection


@dataclass(frozen=True)
class Parameters:
    """All of ``params.yaml`` for one profile.

    Raises:
        ParameterError: if a network cannot work on images of `preprocess.size`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    profile: str
    dataset: Annotated[str, Field(pattern=f"^{PLAIN_NAME}$")]
    seed: Annotated[int, Field(ge=0)]
    device: Literal["auto", "cpu"]
    workers: Annotated[int, Field(ge=0)]
    cohort: CohortSettings
    preprocess: PreprocessSettings
    instruments: InstrumentSettings
    toy: ToySettings
    samples: Count
    vae: VAEParameters
    gan: GANParameters
    diffusion: DiffusionParameters
    latent: LatentParameters
    flow: FlowParameters
    conditional: ConditionalParameters
    masks: MaskParameters
    fidelity: FidelitySettings
    curves: CurveSettings
    utility: UtilitySettings
    teaching: TeachingSettings
    cross_vendor: CrossVendorSettings
    translation: TranslationSettings
    volumes: VolumeSettings
    contrast: ContrastSettings
    privacy: PrivacySettings
    differential_privacy: DifferentialPrivacySettings

    def __post_init__(self) -> None:
        _refuse(self, self.preprocess.size)
        # C15 draws latents of a first stage of its own, with the network of U7
        _refuse(self.latent.ldm_kl, self.conditional.classes_kl.network.side(self.preprocess.size), "latent.ldm_kl")

    def sides(self, size: int) -> dict[str, int]:
        """Of what networks see that do not see images of `size`: latents."""
        return {"differential_privacy": self.latent.kl.network.side(size)}


def _refuse(section: Any, size: int, path: str = "") -> None:
    """Ask everything below `section` that has a method ``refuse(size)`` whether it can work on images of size × size pixels.
    A section with a method ``sides(size)`` says which of its parts see something of another size. Raises ParameterError."""
    if hasattr(section, "refuse"):
        try:
            section.refuse(size)
        except ParameterError as cause:
            raise ParameterError(cause.problem, file="params.yaml", field=f"{path}.{cause.field}",
                                 remedy=f"{cause.remedy}; preprocess.size is the side of the images") from cause
    sides = section.sides(size) if hasattr(section, "sides") else {}
    for part in fields(section):
        if is_dataclass(below := getattr(section, part.name)):
            _refuse(below, sides.get(part.name, size), f"{path}.{part.name}".lstrip("."))
