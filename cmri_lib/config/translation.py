"""Section `translation` of ``params.yaml``: systems that make an image from another one (notebook 14)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from cmri_lib.config.kinds import Count
from cmri_lib.errors import ParameterError
from cmri_lib.generators.reconstruction import ReconstructionSettings
from cmri_lib.networks.mask_to_image import MaskToImageSettings
from cmri_lib.training import AdversarialTraining, TrainSettings


@dataclass(frozen=True)
class ReconstructionSection:
    """Section `translation.reconstruction`: C19, and the U-Net that has the same generator and losses but no critic."""

    network: MaskToImageSettings
    objective: ReconstructionSettings
    training: AdversarialTraining


@dataclass(frozen=True)
class RescannedSettings:
    """Section `translation.vendors`: keys of the phantom's vendors, from whose scans whose are made; and how many `train` and
    `validation` patients are scanned once more by both."""

    source: Literal["A", "B", "C", "D"]
    target: Literal["A", "B", "C", "D"]
    train: Count
    validation: Annotated[int, Field(ge=0)]

    def __post_init__(self) -> None:
        if self.source == self.target:
            raise ParameterError(f"vendor {self.source} is both source and target", file="params.yaml",
                                 field="translation.vendors", remedy="name two vendors")


@dataclass(frozen=True)
class TranslationSettings:
    """Section `translation`: systems of C17 have the networks and objectives of sections `flow`, `diffusion` and
    `conditional.pix2pix`, here stands how long they are trained; between phases and between `vendors` alike;
    `accelerations` of the scan from which C19 reconstructs."""

    denoiser: TrainSettings
    pix2pix: AdversarialTraining
    vendors: RescannedSettings
    reconstruction: ReconstructionSection
    accelerations: Annotated[tuple[Literal[4, 8], ...], Field(min_length=1)]
