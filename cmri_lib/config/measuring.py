"""The sections of `params.yaml` about what is measured, and with what; those about systems are in `config.parameters`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from cmri_lib.config.kinds import Count, Counts, Positive, Share
from cmri_lib.errors import ParameterError
from cmri_lib.training import TrainSettings


@dataclass(frozen=True)
class PublishedSettings:
    """A file of weights, "" for none, and the intensities they were trained with,
    see `measures.instruments.published_features`."""

    weights: str
    intensity: Literal["imagenet", "symmetric"]


@dataclass(frozen=True)
class InstrumentSettings:
    """How the frozen networks are trained.

    Attributes:
        widths: channels of the segmenter at each of its resolutions.
        published: a network of other papers, if the user has its weights.
    """

    detector: TrainSettings
    widths: Counts
    segmenter: TrainSettings
    second_segmenter: TrainSettings
    features: TrainSettings
    published: PublishedSettings

    def refuse(self, size: int) -> None:
        """Raises ParameterError if segmenters or the encoder of features cannot halve images of size × size pixels as often
        as they do: three times, or oftener with more than four widths."""
        if not self.widths or any(width % 8 for width in self.widths):
            raise ParameterError(f"{self.widths}", field="widths", remedy="use multiples of 8 (group norm)")
        if size % (times := 2 ** max(3, len(self.widths) - 1)):
            raise ParameterError(f"a network of widths {self.widths} for images of {size}²", field="widths",
                                 remedy=f"give a preprocess.size that {times} divides, or fewer widths")


@dataclass(frozen=True)
class FidelitySettings:
    """Trainings, which differ by their seed, of each unconditional system in `repeated` and of what primary tests of the
    ablation compare; bootstrap draws of patients, random groups of patients behind each floor, and how many of these are
    corrupted to see which metric answers; how the network of the two-sample test on images learns."""

    repeated: tuple[str, ...]
    seeds: Count
    ablation_seeds: Count
    resamples: Count
    repeats: Count
    corrupted: Count
    image_classifier: TrainSettings


@dataclass(frozen=True)
class CurveSettings:
    """Samples drawn at every point of a curve; numbers of training patients besides all of them."""

    images: Count
    patients: Counts


@dataclass(frozen=True)
class UtilitySettings:
    """Shares of the training patients, and that at which all else is varied; samples per real slice, and those of one
    disease; share of the steps before real slices, samples for each that is selected, steps of the flows' solver; trainings
    of each arm of a primary test, which differ by their seed; scans drawn for the networks that read the ejection fraction,
    and the planes of a phase that they see; and how every arm is trained."""

    fractions: tuple[Share, ...]
    few: Share
    factors: tuple[Positive, ...]
    targeted: Positive
    pretraining: Annotated[float, Field(gt=0, lt=1)]
    candidates: Annotated[int, Field(ge=2)]
    sampling_steps: Count
    seeds: Count
    scans: Count
    planes: Annotated[int, Field(ge=2)]
    training: TrainSettings


@dataclass(frozen=True)
class TeachingSettings:
    """Systems, and chains, whose samples teach a segmenter alone, besides the main one of the utility study."""

    systems: tuple[str, ...]
