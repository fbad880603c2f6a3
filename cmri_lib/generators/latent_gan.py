"""C18, RDP-CGAN: a GAN of latents whose critic alone looks at patients, and is trained privately.

Torfi, Fox & Reddy, "Differentially Private Synthetic Medical Data Generation using Convolutional GANs",
Information Sciences 586, 2022 (arXiv 2012.11774): an autoencoder of public data, a convolutional GAN of its
latents, Rényi differential privacy for the critic. What the generator learns, it learns from the critic, so it
costs no privacy (post-processing).
"""

from __future__ import annotations

from cmri_lib.generators.latent import Latent


class LatentGAN(Latent):
    """`prior` is a `GAN` whose networks make and judge latents."""

    private_group = "critic"

    def noise_shape(self, size: int) -> tuple[int, ...]:
        return self.prior.noise_shape(size)
