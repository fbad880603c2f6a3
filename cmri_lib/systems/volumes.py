"""C7: 3D latent diffusion over the image and the label map of a whole stack together, by a 3D VAE and DDIM (Cheng
et al., as the review describes it). One sample is a stack with its own mask; nothing is given to it."""

from __future__ import annotations

from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.parameters import Parameters
from cmri_lib.generators.diffusion import Diffusion
from cmri_lib.generators.latent import Latent
from cmri_lib.generators.stacks import stack_batch
from cmri_lib.networks.conditioning.base import Batch, Conditioning
from cmri_lib.networks.stack_autoencoder import StackAutoencoder
from cmri_lib.networks.stack_unet import StackDenoiser
from cmri_lib.systems.builders import PLANES
from cmri_lib.systems.system import FirstStage, System

STAGE = "volumes"


def _make(params: Parameters, vocabulary: Vocabulary) -> Latent:
    chosen = params.volumes.diffusion
    first = StackAutoencoder(params.volumes.autoencoder.network, PLANES)
    return Latent(first, Diffusion(StackDenoiser(chosen.network, first.channels), Conditioning(), chosen.objective))


def _batch(slices: Slices, conditioning: Conditioning, params: Parameters) -> Batch:
    return stack_batch(slices, params.volumes.autoencoder.network.planes, PLANES)


STACK_LDM = System("C7 3D LDM", "latent diffusion", "none", STAGE, lambda p: p.volumes.diffusion.training, _make,
                   FirstStage("stack-kl", STAGE, lambda p: p.volumes.autoencoder.training), batch=_batch)
