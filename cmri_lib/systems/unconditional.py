"""The unconditional systems of the review, U1 to U10, and the flow with a mask that notebook 05 sets beside them.

Adding a system is one entry; only a new idea needs a new file.
"""

from __future__ import annotations

from cmri_lib.networks.adversarial import DCGANCritic, DCGANGenerator, ResidualCritic, ResidualGenerator
from cmri_lib.networks.progressive import ProgressiveCritic, ProgressiveGenerator
from cmri_lib.networks.stylegan import StyleCritic, StyleGenerator
from cmri_lib.networks.transformer import TransformerDenoiser
from cmri_lib.systems.builders import diffusion, flow, gan, kl_autoencoder, latent_diffusion, maskgit, vae, vq_autoencoder
from cmri_lib.systems.conditions import mask
from cmri_lib.systems.system import FirstStage, System

KL = FirstStage("kl", "latent", lambda p: p.latent.kl.training)
VQ = FirstStage("vq", "latent", lambda p: p.latent.vq.training)
_kl, _vq = kl_autoencoder(lambda p: p.latent.kl), vq_autoencoder(lambda p: p.latent.vq)


def _dcgan(sizes, latent, size, conditioning):
    return DCGANGenerator(latent, size, sizes), DCGANCritic(size, sizes)


def _wgan(sizes, latent, size, conditioning):
    return ResidualGenerator(latent, size, sizes), ResidualCritic(size, sizes)


def _progressive(sizes, latent, size, conditioning):
    return ProgressiveGenerator(sizes, latent), ProgressiveCritic(sizes)


def _stylegan(sizes, latent, size, conditioning):
    return StyleGenerator(sizes, latent), StyleCritic(sizes)


UNCONDITIONAL: dict[str, System] = {s.id: s for s in (
    System("U1 VAE", "VAE", "none", "vae", lambda p: p.vae.training, vae(lambda p: p.vae)),
    System("U2 DCGAN", "GAN", "none", "gan", lambda p: p.gan.dcgan.training, gan(lambda p: p.gan.dcgan, _dcgan)),
    System("U3 WGAN-GP", "GAN", "none", "gan", lambda p: p.gan.wgan_gp.training, gan(lambda p: p.gan.wgan_gp, _wgan)),
    System("U4 progressive GAN", "GAN", "none", "gan", lambda p: p.gan.progressive.training,
           gan(lambda p: p.gan.progressive, _progressive)),
    System("U5 StyleGAN2-ADA", "GAN", "none", "gan", lambda p: p.gan.stylegan2.training,
           gan(lambda p: p.gan.stylegan2, _stylegan)),
    System("U6 DDPM", "diffusion", "none", "diffusion", lambda p: p.diffusion.training, diffusion()),
    System("U7 LDM-KL", "latent diffusion", "none", "latent", lambda p: p.latent.ldm_kl.training,
           latent_diffusion(_kl, lambda p: p.latent.ldm_kl), KL),
    System("U7 LDM-VQ", "latent diffusion", "none", "latent", lambda p: p.latent.ldm_vq.training,
           latent_diffusion(_vq, lambda p: p.latent.ldm_vq), VQ),
    System("U8 DiT", "latent diffusion", "none", "latent", lambda p: p.latent.dit.training,
           latent_diffusion(_kl, lambda p: p.latent.dit, network=TransformerDenoiser), KL),
    System("U9 MaskGIT", "masked", "none", "latent", lambda p: p.latent.maskgit.training, maskgit(), VQ),
    System("U10 OT-FM", "flow", "none", "flow", lambda p: p.flow.training, flow(coupling="ot")),
    System("U10 FM", "flow", "none", "flow", lambda p: p.flow.training, flow()),
    System("U10 FM + mask", "flow", "mask (concat)", "flow", lambda p: p.flow.training, flow(mask())),
)}
