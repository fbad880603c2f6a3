"""C18: the system that is made to be trained privately. Notebook 12 trains it so, at each ε, from what public patients
teach."""

from __future__ import annotations

from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.parameters import Parameters
from cmri_lib.generators.gan import GAN
from cmri_lib.generators.latent_gan import LatentGAN
from cmri_lib.networks.adversarial import DCGANCritic
from cmri_lib.networks.autoencoder import KLAutoencoder
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.latent_gan import LatentGenerator
from cmri_lib.systems.system import FirstStage, System

STAGE = "differential_privacy"


def _make(params: Parameters, vocabulary: Vocabulary) -> LatentGAN:
    chosen, autoencoder = params.differential_privacy.gan, KLAutoencoder(params.latent.kl.network)
    channels, side, _ = autoencoder.latent_shape(params.preprocess.size)
    generator = LatentGenerator(chosen.objective.latent, side, channels, chosen.network)
    critic = DCGANCritic(side, chosen.network, channels)
    return LatentGAN(autoencoder, GAN(generator, critic, Conditioning(), chosen.objective))


#: Its autoencoder lies apart from those of U7, which have learnt from all training patients.
RDP_CGAN = System("C18 RDP-CGAN", "GAN", "none", STAGE, lambda p: p.differential_privacy.gan.training, _make,
                  FirstStage("kl", STAGE, lambda p: p.latent.kl.training))
