"""The systems of the review, each as what it is made of: a network, an objective, a sampler, a conditioning.

`SYSTEMS` is the study's register: notebooks ask it for a system by the review's id, the scoreboard lists it. Adding a
system is one entry; only a new idea needs a new file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from cmri_lib.config.study import Study
from cmri_lib.errors import ParameterError
from cmri_lib.generators.base import Generator
from cmri_lib.generators.diffusion import Diffusion, DiffusionSettings
from cmri_lib.generators.flow import FlowMatching, FlowSettings
from cmri_lib.generators.gan import GAN, GANSettings
from cmri_lib.generators.latent import Latent
from cmri_lib.generators.masked import MaskGIT, MaskedSettings
from cmri_lib.generators.vae import VAE, VAEObjective
from cmri_lib.networks.adversarial import (AdversarialSettings, DCGANCritic, DCGANGenerator, ResidualCritic,
                                           ResidualGenerator)
from cmri_lib.networks.autoencoder import (Autoencoder, AutoencoderSettings, KLAutoencoder, KLSettings,
                                           VQAutoencoder, VQSettings)
from cmri_lib.networks.conditioning.base import ConcatMask, Conditioning
from cmri_lib.networks.progressive import ProgressiveCritic, ProgressiveGenerator, ProgressiveSettings
from cmri_lib.networks.stylegan import StyleCritic, StyleGANSettings, StyleGenerator
from cmri_lib.networks.transformer import TokenTransformer, TransformerDenoiser, TransformerSettings
from cmri_lib.networks.unet import Denoiser, UNetSettings
from cmri_lib.networks.vae import Decoder, Encoder, VAESettings


@dataclass(frozen=True)
class System:
    """One row of the study.

    Attributes:
        id: begins with the review's id.
        family, conditioning: columns of the result tables.
        section: of params.yaml, dots descend; its first part names the folder of the trained weights.
        make: builds the untrained generator from a `Study` and that section.
        first_stage: section of the autoencoder that is trained before the generator, shared by all that name it.
        start: a system from whose trained networks this one's start, instead of from random weights alone.
    """

    id: str
    family: str
    conditioning: str
    section: str
    make: Callable[[Study, str], Generator]
    first_stage: str = ""
    start: System | None = None

    @property
    def folder(self) -> str:
        """A name for files: ``u10-ot-fm-mask``."""
        return re.sub(r"[^a-z0-9]+", "-", self.id.lower())

    @property
    def stage(self) -> str:
        """Folder of everything trained by the same notebook."""
        return self.section.split(".")[0]

    def build(self, study: Study) -> Generator:
        """The generator with initial weights drawn from the study's seed."""
        torch.manual_seed(study.seed)
        return self.make(study, self.section)


def _diffusion(conditioning: type[Conditioning]) -> Callable[[Study, str], Generator]:
    def make(study: Study, section: str) -> Generator:
        way_in = conditioning()
        network = Denoiser(study.settings(f"{section}.network", UNetSettings), way_in)
        return Diffusion(network, way_in, study.settings(f"{section}.objective", DiffusionSettings))
    return make


def _flow(conditioning: type[Conditioning], **changes: str) -> Callable[[Study, str], Generator]:
    def make(study: Study, section: str) -> Generator:
        way_in = conditioning()
        network = Denoiser(study.settings(f"{section}.network", UNetSettings), way_in)
        settings = replace(study.settings(f"{section}.objective", FlowSettings), **changes)
        return FlowMatching(network, way_in, settings)
    return make


def _vae(conditioning: type[Conditioning]) -> Callable[[Study, str], Generator]:
    def make(study: Study, section: str) -> Generator:
        way_in, sizes = conditioning(), study.settings(f"{section}.network", VAESettings)
        objective = study.settings(f"{section}.objective", VAEObjective)
        return VAE(Encoder(sizes, way_in), Decoder(sizes, way_in), sizes.latent, way_in, objective)
    return make


def _gan(networks: Callable[[object, int, int], tuple[nn.Module, nn.Module]], kind: type
         ) -> Callable[[Study, str], Generator]:
    """`networks` makes (generator, critic) from settings of `kind`, the length of z and the side of the images."""
    def make(study: Study, section: str) -> Generator:
        sizes, objective = study.settings(f"{section}.network", kind), study.settings(f"{section}.objective", GANSettings)
        return GAN(*networks(sizes, objective.latent, study.values["preprocess"]["size"]), Conditioning(), objective)
    return make


def _latent(first: type[Autoencoder], sizes: type[AutoencoderSettings], prior: Callable[[Study, str, Autoencoder], Generator]
            ) -> Callable[[Study, str], Generator]:
    """A system with a first stage. The autoencoder is built first, so all that share it find the same initial weights."""
    def make(study: Study, section: str) -> Generator:
        stage = "latent.kl" if first is KLAutoencoder else "latent.vq"
        return prior(study, section, first(study.settings(f"{stage}.network", sizes)))
    return make


def _latent_diffusion(network: type[nn.Module], kind: type) -> Callable[[Study, str, Autoencoder], Generator]:
    def prior(study: Study, section: str, autoencoder: Autoencoder) -> Generator:
        way_in, sizes = Conditioning(), study.settings(f"{section}.network", kind)
        objective = study.settings(f"{section}.objective", DiffusionSettings)
        return Latent(autoencoder, Diffusion(network(sizes, way_in, autoencoder.channels), way_in, objective))
    return prior


def _maskgit(study: Study, section: str, autoencoder: VQAutoencoder) -> Generator:
    network = TokenTransformer(study.settings(f"{section}.network", TransformerSettings), autoencoder.codes)
    return MaskGIT(autoencoder, network, study.settings(f"{section}.objective", MaskedSettings))


_dcgan = _gan(lambda s, latent, size: (DCGANGenerator(latent, size, s), DCGANCritic(size, s)), AdversarialSettings)
_wgan = _gan(lambda s, latent, size: (ResidualGenerator(latent, size, s), ResidualCritic(size, s)), AdversarialSettings)
_progressive = _gan(lambda s, latent, size: (ProgressiveGenerator(s, latent), ProgressiveCritic(s)), ProgressiveSettings)
_stylegan = _gan(lambda s, latent, size: (StyleGenerator(s, latent), StyleCritic(s)), StyleGANSettings)

SYSTEMS: dict[str, System] = {s.id: s for s in (
    System("U1 VAE", "VAE", "none", "vae", _vae(Conditioning)),
    System("U2 DCGAN", "GAN", "none", "gan.dcgan", _dcgan),
    System("U3 WGAN-GP", "GAN", "none", "gan.wgan_gp", _wgan),
    System("U4 progressive GAN", "GAN", "none", "gan.progressive", _progressive),
    System("U5 StyleGAN2-ADA", "GAN", "none", "gan.stylegan2", _stylegan),
    System("U6 DDPM", "diffusion", "none", "diffusion", _diffusion(Conditioning)),
    System("U7 LDM-KL", "latent diffusion", "none", "latent.ldm_kl",
           _latent(KLAutoencoder, KLSettings, _latent_diffusion(Denoiser, UNetSettings)), "latent.kl"),
    System("U7 LDM-VQ", "latent diffusion", "none", "latent.ldm_vq",
           _latent(VQAutoencoder, VQSettings, _latent_diffusion(Denoiser, UNetSettings)), "latent.vq"),
    System("U8 DiT", "latent diffusion", "none", "latent.dit",
           _latent(KLAutoencoder, KLSettings, _latent_diffusion(TransformerDenoiser, TransformerSettings)), "latent.kl"),
    System("U9 MaskGIT", "masked", "none", "latent.maskgit", _latent(VQAutoencoder, VQSettings, _maskgit), "latent.vq"),
    System("U10 OT-FM", "flow", "none", "flow", _flow(Conditioning)),
    System("U10 FM", "flow", "none", "flow", _flow(Conditioning, coupling="independent")),
    System("U10 OT-FM + mask", "flow", "mask (concat)", "flow", _flow(ConcatMask, coupling="independent")),
)}


def system(name: str) -> System:
    """The system of that id. Raises ParameterError with the known ids."""
    if name not in SYSTEMS:
        raise ParameterError(f"unknown system {name!r}", field="system", remedy=f"choose among {list(SYSTEMS)}")
    return SYSTEMS[name]
