"""Section `cross_vendor` of ``params.yaml``: which segmenters meet scanners that they have not learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from cmri_lib.config.kinds import Count, Positive, Share
from cmri_lib.training import TrainSettings


@dataclass(frozen=True)
class CrossVendorSettings:
    """Section `cross_vendor`: whether segmenters learn from each vendor alone as well; systems that draw samples in
    the style of a vendor, besides that of the primary test; samples per real slice, of which validation patients
    choose one; names of other ways of preprocessing (`experiments.preprocessing_ways`); trainings of each arm of a
    primary test, which differ by their seed; strengths at which C13 brings test images into the style of the seen vendors, of
    which validation patients choose one, and the wavelength in pixels down to which it keeps the image; how every
    segmenter is trained; and names of the ways after which a short flow learns to draw, how it is trained, and how many samples
    of each are scored."""

    single: bool
    systems: tuple[str, ...]
    factors: Annotated[tuple[Positive, ...], Field(min_length=1)]
    ways: tuple[str, ...]
    seeds: Count
    strengths: Annotated[tuple[Share, ...], Field(min_length=1)]
    finest: Annotated[float, Field(ge=0)]
    training: TrainSettings
    synthesis_ways: tuple[str, ...]
    synthesis: TrainSettings
    synthesis_samples: Annotated[int, Field(ge=2)]
