"""Private trainings of notebook 12: who is public, who is private, who is a canary, and the runs at each ε.

The training patients fall into a **public** part, on which a system is pre-trained as usual, and a
**private** one. Of the private patients two are always learnt from, and every other is a *canary*: a coin
says whether he or she is. So those who were left out differ from those who were not by the coins alone.
Sampling rate, noise and δ follow from the list of private patients, before any coin falls.

With the same coins, all trainings are attacked with the same two groups of patients, and may all be deceived by
the same chance: one group may simply be easier to draw. So some trainings are repeated with coins of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from cmri_lib.cohort.requirements import FEWEST_SPLIT
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.differential_privacy import DifferentialPrivacySettings
from cmri_lib.config.parameters import Parameters
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.experiments.training import train_or_load, training_patients, training_slices
from cmri_lib.generators.base import Generator, training_batch
from cmri_lib.generators.differentiable_augment import AdaptiveAugment
from cmri_lib.measures.cost import memory_for_gradient
from cmri_lib.privacy.differential.accountant import noise_multiplier, spent
from cmri_lib.privacy.differential.training import PATIENT, Mechanism, private_group, train_privately
from cmri_lib.systems.private import RDP_CGAN, STAGE
from cmri_lib.systems.register import system
from cmri_lib.systems.system import Run, Variant
from cmri_lib.training import TrainSettings
from cmri_lib.training.batches import Batch, mixed_seed

#: Private patients who are always learnt from, so that there are members whatever the coins say.
ALWAYS = 2
#: The ε of the arms, and of the claim.
REFERENCE = 10.0
#: Parts of a diffusion's or a flow's U-Net that the arm "last layers" trains; the others keep the public
#: weights.
LAST = ("network.unet.out.", "network.unet.up_blocks.{last}.")


@dataclass(frozen=True)
class Private(Variant):
    """A private training: at which ε (∞: clipped, without noise), and whether of the last layers only.
    `train_or_load_any` trains it, and nothing else does."""

    epsilon: float = math.inf
    last_layers: bool = False


@dataclass(frozen=True)
class Roles:
    """Names of training patients.

    Attributes:
        public: of the pre-training. private: all others. canaries: the private ones for whom a coin was
            tossed.
        included: the private ones who are learnt from.
    """

    public: tuple[str, ...]
    private: tuple[str, ...]
    canaries: tuple[str, ...]
    included: tuple[str, ...]

    @property
    def left_out(self) -> tuple[str, ...]:
        return tuple(name for name in self.canaries if name not in self.included)

    @property
    def expected(self) -> float:
        """How many private patients are learnt from, on average over the coins."""
        return len(self.private) - len(self.canaries) / 2

    @property
    def delta(self) -> float:
        """δ: a tenth of one patient in all; NaN without any."""
        return 1 / (10 * len(self.private)) if self.private else math.nan


def roles(study: Study, slices: Slices, toss: int = 0) -> Roles:
    """Who is who, from the study's seed; another `toss` of the coins changes who is learnt from, and nothing else. Nobody
    is anything where there are fewer than `FEWEST_SPLIT` training patients."""
    names = training_patients(study, slices)
    if len(names) < FEWEST_SPLIT:
        return Roles((), (), (), ())
    count = min(max(2, round(study.params.differential_privacy.public * len(names))), len(names) - 2 * ALWAYS)
    public, private = names[:count], names[count:]
    seed = mixed_seed(study.seed, 12, toss) if toss else mixed_seed(study.seed, 12)
    heads = np.random.default_rng(seed).random(len(private)) < 0.5
    heads[:ALWAYS] = True
    included = tuple(name for name, head in zip(private, heads) if head)
    return Roles(public, private, private[ALWAYS:], included)


def public_run(study: Study, slices: Slices, name: str) -> Run:
    """The pre-training of a system: as usual, on public patients alone."""
    return Run(replace(system(name), id=f"public {name}", stage=STAGE), patients=roles(study, slices).public)


def private_run(study: Study, slices: Slices, name: str, epsilon: float, arm: str = "", toss: int = 0) -> Run:
    """The private training of a system at ε; `arm` is "", "from nothing" or "last layers". C18 is private by its nature, so
    its name need not say so. An autoencoder comes with the public weights: no first stage is trained.

    Raises:
        ParameterError: on "from nothing" of a system with an autoencoder, which nobody would have trained.
    """
    if arm == "from nothing" and system(name).first_stage is not None:
        raise ParameterError(f"{arm!r} of {name}, whose autoencoder comes with the public weights",
                             field="differential_privacy.arms",
                             remedy="leave this arm out, or put a system in pixels first in differential_privacy.systems")
    text = ", ".join(filter(None, (f"epsilon = {epsilon:g}", arm, f"toss {toss + 1}" * bool(toss))))
    named = name if name == RDP_CGAN.id else f"private {name}"
    settings = _gan_settings if name == RDP_CGAN.id else _settings
    return Run(replace(system(name), id=named, stage=STAGE, training=settings, first_stage=None),
               patients=roles(study, slices, toss).included,
               variant=Private(text, epsilon=epsilon, last_layers=arm == "last layers"),
               pretrained=None if arm == "from nothing" else public_run(study, slices, name))


def private_runs(study: Study, slices: Slices, name: str) -> list[Run]:
    """Those of a system: from the smallest ε to ∞, then the arms, which the first system alone has."""
    settings = study.params.differential_privacy
    found = [private_run(study, slices, name, epsilon) for epsilon in (*sorted(settings.epsilons), math.inf)]
    arms = settings.arms if name == settings.systems[0] else ()
    return [*found, *(private_run(study, slices, name, REFERENCE, arm) for arm in arms)]


def tossed_runs(study: Study, slices: Slices, name: str) -> dict[float, list[Run]]:
    """ε of the claim, and ∞ → the trainings of a system that differ in their coins, that of `private_runs` first. Only the
    first system has more than that one."""
    settings = study.params.differential_privacy
    tosses = settings.tosses if name == settings.systems[0] else 1
    return {epsilon: [private_run(study, slices, name, epsilon, toss=toss) for toss in range(tosses)]
            for epsilon in (REFERENCE, math.inf) if epsilon in (*settings.epsilons, math.inf)}


def differential_privacy_runs(study: Study, slices: Slices) -> list[Run]:
    """Every training of the notebook; none where there are too few patients."""
    systems = study.params.differential_privacy.systems if roles(study, slices).private else ()
    return [run for name in systems
            for run in (public_run(study, slices, name), *private_runs(study, slices, name),
                        *(run for runs in tossed_runs(study, slices, name).values() for run in runs[1:]))]


def _settings(params: Parameters) -> TrainSettings:
    return params.differential_privacy.training.settings


def _gan_settings(params: Parameters) -> TrainSettings:
    """The same for C18, a game of two: the optimiser of its public training, for with Adam's usual momentum it circles, and a
    smaller learning rate. Both were chosen by the share of valid hearts in samples, which asks no patient."""
    gan = params.differential_privacy.gan
    return replace(_settings(params), learning_rate=gan.private_learning_rate, beta1=gan.training.beta1,
                   beta2=gan.training.beta2)


def mechanism(settings: DifferentialPrivacySettings, who: Roles, epsilon: float) -> Mechanism:
    """What a step at ε does."""
    training = settings.training
    rate = min(1.0, training.patients / who.expected)
    noise = noise_multiplier(epsilon, who.delta, rate, training.steps)
    return Mechanism(rate, rate * who.expected, training.slices, training.clip, noise)


def accounted(study: Study, slices: Slices, run: Run) -> dict[str, float]:
    """Accountant → the ε that the private training has spent."""
    who, settings = roles(study, slices), study.params.differential_privacy
    used = mechanism(settings, who, run.variant.epsilon)
    return spent(used.noise, used.rate, settings.training.steps, who.delta)


def train_or_load_any(study: Study, run: Run, slices: Slices) -> Generator:
    """The trained generator of a run, by the private loop if it is `Private`, else by `training.train`.

    Raises:
        ParameterError: if a private training would learn from its patients what no noise hides.
    """
    if not isinstance(run.variant, Private):
        return train_or_load(study, run, slices)
    codes = np.unique(training_slices(run, slices)[0].patients, return_inverse=True)[1]
    whose = {PATIENT: torch.from_numpy(codes)}
    step = mechanism(study.params.differential_privacy, roles(study, slices), run.variant.epsilon)

    def learn(generator: Generator, data: Batch, settings: TrainSettings, folder: Path, *, validation: Batch | None,
              source: Batch) -> None:
        refuse_adapting(generator)
        if run.variant.last_layers:
            freeze_all_but_last(generator)
        train_privately(generator, data | whose, settings, step, folder, source=source | whose)

    return train_or_load(study, run, slices, learn)


def refuse_adapting(generator: Generator) -> None:
    """Raise ParameterError if the generator adapts its augmentation to what its critic says of real images: that is kept with
    the weights, and neither clipped nor made noisy."""
    if any(isinstance(part, AdaptiveAugment) for part in generator.modules()):
        raise ParameterError("an augmentation that adapts to private images", remedy='take "none" or "diffaug"',
                             field="differential_privacy.gan.objective.augment")


def step_memory(study: Study, run: Run, slices: Slices) -> float:
    """MiB of activations that a step of a trained run keeps for its gradient, at most: a private one looks at one patient after
    another, any other at its whole batch."""
    generator = train_or_load_any(study, run, slices)
    private = isinstance(run.variant, Private)
    count = study.params.differential_privacy.training.slices if private else run.settings(study.params, study.seed).batch
    seen = training_slices(run, slices)[0].take(np.arange(count))
    batch = generator.prepare(training_batch(seen, generator.conditioning))
    groups = [private_group(generator)] if private else list(generator.parameter_groups())
    return max(memory_for_gradient(partial(generator.loss, batch, group), generator) for group in groups)


def freeze_all_but_last(generator: Generator) -> None:
    """Keep every weight but those of the U-Net's last level and output.

    Raises:
        DataError: if the generator has no such parts.
    """
    names = {name for name, _ in generator.named_parameters()}
    levels = [int(name.split(".")[3]) for name in names if name.startswith("network.unet.up_blocks.")]
    prefixes = tuple(prefix.format(last=max(levels, default=0)) for prefix in LAST)
    if not levels or not any(name.startswith(prefixes) for name in names):
        raise DataError("has no U-Net", field="differential_privacy.arms",
                        remedy="take a diffusion or a flow in pixels")
    for name, parameter in generator.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
