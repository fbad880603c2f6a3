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

from cmri_lib.errors import ParameterError
from cmri_lib.generators.base import Generator
from cmri_lib.generators.diffusion import Diffusion, DiffusionSettings
from cmri_lib.generators.flow import FlowMatching, FlowSettings
from cmri_lib.generators.gan import GAN, GANSettings
from cmri_lib.networks.adversarial import (AdversarialSettings, DCGANCritic, DCGANGenerator, ResidualCritic,
                                           ResidualGenerator)
from cmri_lib.networks.conditioning import ConcatMask, Conditioning
from cmri_lib.networks.unet import Denoiser, UNetSettings
from cmri_lib.study import Study


@dataclass(frozen=True)
class System:
    """One row of the study.

    Attributes:
        id: begins with the review's id.
        family, conditioning: columns of the result tables.
        section: of params.yaml, dots descend; its first part names the folder of the trained weights.
        make: builds the untrained generator from a `Study` and that section.
        first_stage: section of the autoencoder that is trained before the generator, shared by all that name it.
    """

    id: str
    family: str
    conditioning: str
    section: str
    make: Callable[[Study, str], Generator]
    first_stage: str = ""

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


def _gan(generator: type[nn.Module], critic: type[nn.Module], kind: type) -> Callable[[Study, str], Generator]:
    """`generator` (latent, size, sizes) against `critic` (size, sizes), sizes being of `kind`."""
    def make(study: Study, section: str) -> Generator:
        sizes = study.settings(f"{section}.network", kind)
        objective = study.settings(f"{section}.objective", GANSettings)
        size = study.values["preprocess"]["size"]
        return GAN(generator(objective.latent, size, sizes), critic(size, sizes), Conditioning(), objective)
    return make


SYSTEMS: dict[str, System] = {s.id: s for s in (
    System("U2 DCGAN", "GAN", "none", "gan.dcgan", _gan(DCGANGenerator, DCGANCritic, AdversarialSettings)),
    System("U3 WGAN-GP", "GAN", "none", "gan.wgan_gp", _gan(ResidualGenerator, ResidualCritic, AdversarialSettings)),
    System("U6 DDPM", "diffusion", "none", "diffusion", _diffusion(Conditioning)),
    System("U10 OT-FM", "flow", "none", "flow", _flow(Conditioning)),
    System("U10 FM", "flow", "none", "flow", _flow(Conditioning, coupling="independent")),
    System("U10 OT-FM + mask", "flow", "mask (concat)", "flow", _flow(ConcatMask, coupling="independent")),
)}


def system(name: str) -> System:
    """The system of that id. Raises ParameterError with the known ids."""
    if name not in SYSTEMS:
        raise ParameterError(f"unknown system {name!r}", field="system", remedy=f"choose among {list(SYSTEMS)}")
    return SYSTEMS[name]
