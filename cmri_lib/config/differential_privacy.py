"""Section `differential_privacy` of ``params.yaml``: private trainings, at which ε, and how they are
attacked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from cmri_lib.config.kinds import Count, Positive
from cmri_lib.generators.gan import GANSettings
from cmri_lib.networks.adversarial import AdversarialSettings
from cmri_lib.training import AdversarialTraining, TrainSettings


@dataclass(frozen=True)
class PrivateTraining:
    """`patients` is their expected number in a step, `slices` what is seen of each; `clip` the norm to which
    a patient's gradient is clipped."""

    steps: Count
    patients: Count
    slices: Count
    clip: Positive
    learning_rate: Positive
    ema: Annotated[float, Field(ge=0, lt=1)]
    log_every: Count

    @property
    def settings(self) -> TrainSettings:
        """The same for the loop: a batch is the expected number of slices, and nothing but patients is
        clipped."""
        return TrainSettings(steps=self.steps, batch=self.patients * self.slices, learning_rate=self.learning_rate,
                             grad_clip=0.0, ema=self.ema, log_every=self.log_every)


@dataclass(frozen=True)
class PublicGAN:
    """C18: networks and objective, its training on public patients, and the learning rate of the private one."""

    network: AdversarialSettings
    objective: GANSettings
    training: AdversarialTraining
    private_learning_rate: Positive


@dataclass(frozen=True)
class DifferentialPrivacySettings:
    """`systems` are trained at each of `epsilons`, and without noise; the share `public` of the training
    patients is what they are pre-trained on; `samples` are drawn of each. An attack looks at `slices` of a
    patient at `times` between image (0) and noise (1). `arms` change one thing at ε = 10. So often are coins tossed:
    `tosses`, each for a training at ε = 10 and one without noise. `gan` is C18, its training that of the public part."""

    systems: tuple[str, ...]
    epsilons: tuple[Positive, ...]
    public: Annotated[float, Field(gt=0, lt=1)]
    samples: Annotated[int, Field(ge=10)]
    slices: Count
    times: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    arms: tuple[Literal["from nothing", "last layers"], ...]
    tosses: Count
    training: PrivateTraining
    gan: PublicGAN
