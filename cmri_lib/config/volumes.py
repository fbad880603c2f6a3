"""Section `volumes` of ``params.yaml``: whole stacks, image and label map together (notebook 15)."""

from __future__ import annotations

from dataclasses import dataclass

from cmri_lib.config.kinds import Count
from cmri_lib.errors import ParameterError
from cmri_lib.generators.diffusion import DiffusionSettings
from cmri_lib.networks.stack_autoencoder import StackSettings
from cmri_lib.networks.unet import UNetSettings
from cmri_lib.training import TrainSettings


@dataclass(frozen=True)
class StackAutoencoderSection:
    """Section `volumes.autoencoder`: the first stage of C7."""

    network: StackSettings
    training: TrainSettings


@dataclass(frozen=True)
class StackDiffusionSection:
    """Section `volumes.diffusion`: the second stage of C7, on the latents of the first."""

    network: UNetSettings
    objective: DiffusionSettings
    training: TrainSettings


@dataclass(frozen=True)
class VolumeSettings:
    """Section `volumes`: C7; of so many test `slices`, at least, whole stacks are drawn anew; `slicewise` names the
    systems that draw slice by slice under a patient's masks and stand beside it."""

    slices: Count
    slicewise: tuple[str, ...]
    autoencoder: StackAutoencoderSection
    diffusion: StackDiffusionSection

    def refuse(self, size: int) -> None:
        """Raises ParameterError if stacks cannot be halved along their axis as often as the diffusion asks."""
        planes, network = self.autoencoder.network.planes, self.diffusion.network
        if network.patch != 1:
            raise ParameterError(f"{network.patch}", field="diffusion.network.patch", remedy="use 1: latents are small already")
        if planes % (times := 2 ** (len(network.channels) - 1)):
            raise ParameterError(f"{network.channels} for stacks of {planes} planes", field="diffusion.network.channels",
                                 remedy=f"make volumes.autoencoder.network.planes a multiple of {times}, or give fewer levels")

    def sides(self, size: int) -> dict[str, int]:
        """Of what networks see that do not see images of `size`: latents."""
        return {"diffusion": self.autoencoder.network.side(size)}
