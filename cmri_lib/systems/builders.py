"""One builder per kind of generator: each returns a function that makes it, untrained, from the study's parameters.

The order in which networks are made is part of what a seed means: initial weights are drawn in that order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.parameters import KLSection, LatentUNetSection, Parameters, VAEParameters, VQSection
from cmri_lib.generators.diffusion import Diffusion
from cmri_lib.generators.factorised import CODE, Factorised
from cmri_lib.generators.flow import FlowMatching
from cmri_lib.generators.gan import GAN
from cmri_lib.generators.label_maps import LabelMaps
from cmri_lib.generators.latent import Latent
from cmri_lib.generators.masked import MaskGIT
from cmri_lib.generators.reconstruction import Regression
from cmri_lib.generators.vae import VAE
from cmri_lib.networks.autoencoder import Autoencoder, KLAutoencoder, VQAutoencoder
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.conditioning.embeddings import CompositeConditioning, VectorCondition
from cmri_lib.networks.controlnet import Controlled
from cmri_lib.networks.transformer import TokenTransformer
from cmri_lib.networks.unet import Denoiser
from cmri_lib.networks.vae import Decoder, Encoder
from cmri_lib.systems.conditions import Condition, unconditional
from cmri_lib.systems.system import Make

#: Planes of a label map, background included.
PLANES = len(LABELS) + 1
#: (settings, length of z, side of the images, conditioning) → generator and critic.
Networks = Callable[[Any, int, int, Conditioning], tuple[nn.Module, nn.Module]]


def vae(section: Callable[[Parameters], VAEParameters], condition: Condition = unconditional, channels: int = 1
        ) -> Callable[[Parameters, Vocabulary], VAE]:
    """A VAE of images of `channels` channels."""
    def make(params: Parameters, vocabulary: Vocabulary) -> VAE:
        chosen, conditioning = section(params), condition(vocabulary)
        encoder = Encoder(chosen.network, conditioning, channels)
        decoder = Decoder(chosen.network, conditioning, channels)
        return VAE(encoder, decoder, chosen.network.latent, conditioning, chosen.objective)
    return make


def gan(section: Callable[[Parameters], Any], networks: Networks, condition: Condition = unconditional, *,
        kind: type[GAN] = GAN) -> Make:
    """An adversarial system of a section with network, objective and training."""
    def make(params: Parameters, vocabulary: Vocabulary) -> GAN:
        chosen, conditioning = section(params), condition(vocabulary)
        pair = networks(chosen.network, chosen.objective.latent, params.preprocess.size, conditioning)
        return kind(*pair, conditioning, chosen.objective)
    return make


def regression(section: Callable[[Parameters], Any], networks: Networks, condition: Condition) -> Make:
    """The generator of an adversarial system, without its critic."""
    def make(params: Parameters, vocabulary: Vocabulary) -> Regression:
        chosen, conditioning = section(params), condition(vocabulary)
        network, _ = networks(chosen.network, chosen.objective.latent, params.preprocess.size, conditioning)
        return Regression(network, conditioning, chosen.objective)
    return make


def diffusion(condition: Condition = unconditional, *, control: bool = False, kind: type[Diffusion] = Diffusion) -> Make:
    """Diffusion in pixels; with `control` the condition enters through a ControlNet."""
    def make(params: Parameters, vocabulary: Vocabulary) -> Diffusion:
        conditioning = condition(vocabulary)
        return kind(_unet(params.diffusion.network, conditioning, control), conditioning, params.diffusion.objective)
    return make


def flow(condition: Condition = unconditional, *, control: bool = False, coupling: str = "independent",
         kind: type[FlowMatching] = FlowMatching) -> Make:
    """Flow matching in pixels. Optimal transport (`coupling` "ot") is for unconditional systems: paired by transport, noise
    would be tied to the condition."""
    def make(params: Parameters, vocabulary: Vocabulary) -> FlowMatching:
        conditioning = condition(vocabulary)
        objective = params.flow.objective if coupling == "ot" else replace(params.flow.objective, coupling=coupling)
        return kind(_unet(params.flow.network, conditioning, control), conditioning, objective)
    return make


def _unet(sizes: Any, conditioning: Conditioning, control: bool) -> nn.Module:
    return Controlled(sizes, Conditioning(), conditioning) if control else Denoiser(sizes, conditioning)


def kl_autoencoder(section: Callable[[Parameters], KLSection]) -> Callable[[Parameters], KLAutoencoder]:
    """A first stage with continuous latents."""
    return lambda params: KLAutoencoder(section(params).network)


def vq_autoencoder(section: Callable[[Parameters], VQSection]) -> Callable[[Parameters], VQAutoencoder]:
    """A first stage with a codebook."""
    return lambda params: VQAutoencoder(section(params).network)


def latent_diffusion(autoencoder: Callable[[Parameters], Autoencoder], section: Callable[[Parameters], LatentUNetSection],
                     condition: Condition = unconditional, *, control: Condition | None = None,
                     network: Callable[[Any, Conditioning, int], nn.Module] = Denoiser) -> Make:
    """Diffusion of latents. `control`: a condition as large as the images, which a ControlNet over the frozen network sees.

    The autoencoder is made first, so that all systems that share it find the same initial weights.
    """
    def make(params: Parameters, vocabulary: Vocabulary) -> Latent:
        first, chosen, conditioning = autoencoder(params), section(params), condition(vocabulary)
        if control is None:
            made = network(chosen.network, conditioning, first.channels)
            return Latent(first, Diffusion(made, conditioning, chosen.objective))
        hint = control(vocabulary)
        made = Controlled(chosen.network, conditioning, hint, first.channels, first.levels)
        return Latent(first, Diffusion(made, CompositeConditioning(conditioning, hint), chosen.objective))
    return make


def maskgit(condition: Condition = unconditional) -> Make:
    """A masked transformer over the tokens of the VQ autoencoder."""
    def make(params: Parameters, vocabulary: Vocabulary) -> MaskGIT:
        first, chosen, conditioning = VQAutoencoder(params.latent.vq.network), params.latent.maskgit, condition(vocabulary)
        network = TokenTransformer(chosen.network, first.codes, conditioning)
        return MaskGIT(first, network, chosen.objective, conditioning)
    return make


def factorised(condition: Condition) -> Make:
    """C14. The first stage has the condition as well, so that its code need not hold it."""
    domain_vae = vae(lambda params: params.conditional.domain_vae, condition)

    def make(params: Parameters, vocabulary: Vocabulary) -> Factorised:
        domain = domain_vae(params, vocabulary)
        conditioning = condition(vocabulary)  # one of its own: the first stage's is frozen with it
        both = CompositeConditioning(conditioning, VectorCondition(CODE, domain.latent))
        return Factorised(domain, Denoiser(params.diffusion.network, both), conditioning, params.diffusion.objective)
    return make


def label_vae(section: Callable[[Parameters], VAEParameters]) -> Make:
    """A VAE of label maps."""
    planes = vae(section, channels=PLANES)
    return lambda params, vocabulary: LabelMaps(planes(params, vocabulary), PLANES)


def label_diffusion(condition: Condition) -> Make:
    """Diffusion of label maps, at a fraction of the images' side."""
    def make(params: Parameters, vocabulary: Vocabulary) -> LabelMaps:
        chosen, conditioning = params.masks.diffusion, condition(vocabulary)
        network = Denoiser(chosen.network, conditioning, PLANES)
        return LabelMaps(Diffusion(network, conditioning, chosen.objective), PLANES, chosen.shrink)
    return make
