"""Adversarial training: a generator makes images, a critic tells them from real ones, each learns from the other.

Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014 (arXiv 1406.2661); Gulrajani et al., "Improved Training
of Wasserstein GANs", NeurIPS 2017 (arXiv 1704.00028); Mescheder et al., "Which Training Methods for GANs do actually
Converge?", ICML 2018 (arXiv 1801.04406). What a system adds (growing, styles) is the business of its two networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.generators.base import Generator
from cmri_lib.generators.differentiable_augment import make_augment
from cmri_lib.networks.conditioning.base import Batch, Conditioning


@dataclass(frozen=True)
class GANSettings:
    """The objective.

    `gradient_penalty` is λ of WGAN-GP and `r1` is γ of R1, 0 for none; R1 is computed at every `r1_every`-th step, times
    `r1_every` (lazy regularisation, Karras et al. 2020, sec. 3.1); the critic moves `critic_steps` times for each
    step of the generator; `drift` weighs the critic's squared output on real images, which a Wasserstein loss leaves
    free (Karras et al. 2018, app. A.1); `augment` is what both kinds of image pass through before the critic sees them;
    `reconstruction` weighs the absolute difference to the real image of the same mask (Isola et al. 2017, eq. 4), and
    `feature_matching` that of what the critic's layers make of the two (Wang et al. 2018, pix2pixHD, eq. 4); without a mask
    no fake belongs to a real image, and nothing is matched.
    """

    loss: Literal["non-saturating", "wasserstein", "hinge"] = "non-saturating"
    latent: int = 64
    gradient_penalty: float = 0.0
    r1: float = 0.0
    r1_every: int = 1
    critic_steps: int = 1
    drift: float = 0.0
    reconstruction: float = 0.0
    feature_matching: float = 0.0
    augment: Literal["none", "diffaug", "ada"] = "none"
    ada_target: float = 0.6

    def __post_init__(self) -> None:
        for name in ("latent", "r1_every", "critic_steps"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{getattr(self, name)} is not positive", field=name, remedy="give at least 1")
        for name in ("gradient_penalty", "r1", "drift", "reconstruction", "feature_matching"):
            if getattr(self, name) < 0:
                raise ParameterError(f"{getattr(self, name)} is negative", field=name, remedy="give 0 for none")


class GAN(Generator):
    """U2 to U5.

    Args:
        generator: (z (B, latent), batch) → images (B, 1, H, W). Further keywords are choices of sampling.
        critic: (images, batch) → logits, higher for what looks real: (B,), or (B, n) from a critic that judges n patches. For
            feature matching it has a method ``judge``, which returns its features as well.
        conditioning: the one that both networks use.
        settings: the objective.

    A network with a method ``grow(progress)`` is called at each step with the share of the training that has passed. Images are
    always given at full size; a network that grows resamples them itself, and is fully grown in eval mode.
    """

    def __init__(self, generator: nn.Module, critic: nn.Module, conditioning: Conditioning,
                 settings: GANSettings = GANSettings()):
        super().__init__()
        self.generator, self.critic, self.conditioning, self.settings = generator, critic, conditioning, settings
        self.augment = make_augment(settings.augment, settings.ada_target)
        self.objective = astuple(settings)  # a plain attribute, so that a training knows what it depends on
        self.penalise = True  # whether R1 is computed at this step
        self.matched = settings.feature_matching if conditioning.channels or conditioning.regions else 0.0

    @property
    def recordable(self) -> bool:
        """A network that grows becomes another one."""
        return not any(hasattr(network, "grow") for network in (self.generator, self.critic))

    @property
    def branch(self) -> bool:
        return self.penalise

    @property
    def nfe(self) -> int:
        return 1

    def noise_shape(self, size: int) -> tuple[int, ...]:
        return (self.settings.latent,)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        # A ControlNet's base is frozen, and an optimiser keeps moments of all that it is given.
        return {name: [p for p in network.parameters() if p.requires_grad]
                for name, network in (("critic", self.critic), ("generator", self.generator))}

    def update_schedule(self, step: int, steps: int) -> tuple[str, ...]:
        """The critic always; the generator when the critic has moved `critic_steps` times since it last did."""
        self.penalise = step % self.settings.r1_every == 0
        for network in (self.generator, self.critic):
            if hasattr(network, "grow"):
                network.grow(step / steps)
        return ("critic", "generator") if (step + 1) % self.settings.critic_steps == 0 else ("critic",)

    def loss(self, batch: Batch, group: str) -> Tensor:
        return self._critic_loss(batch) if group == "critic" else self._generator_loss(batch)

    @torch.no_grad()
    def sample(self, noise: Tensor, batch: Batch, **choices: object) -> Tensor:
        return self.generator(noise, batch, **choices)

    def _make(self, batch: Batch) -> Tensor:
        """As many fakes as there are real images."""
        z = torch.randn(len(batch["image"]), self.settings.latent, device=batch["image"].device)
        return self.generator(z, batch)

    def _generator_loss(self, batch: Batch) -> Tensor:
        fake = self._make(batch)
        with frozen(self.critic):
            seen = self.augment(fake)
            logits, features = self.critic.judge(seen, batch) if self.matched else (self.critic(seen, batch), [])
        loss = generator_loss(self.settings.loss, logits.float())
        if self.matched:
            with torch.no_grad():
                _, wanted = self.critic.judge(batch["image"], batch)
            distances = [F.l1_loss(made, real) for made, real in zip(features, wanted)]
            loss = loss + self.matched * torch.stack(distances).mean()
        return loss + self._distance(fake, batch["image"])

    def _distance(self, fake: Tensor, real: Tensor) -> Tensor | float:
        """The weighted distance to the real image of the same condition; 0 where it has no weight."""
        return self.settings.reconstruction * F.l1_loss(fake, real) if self.settings.reconstruction else 0.0

    def _critic_loss(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            fake = self.augment(self._make(batch))
        with_r1 = self.settings.r1 > 0 and self.penalise
        real = self.augment(batch["image"]).detach().requires_grad_(with_r1)
        logits = self.critic(real, batch).float()
        if self.settings.augment == "ada":
            self.augment.update(logits.detach())
        loss = critic_loss(self.settings.loss, logits, self.critic(fake, batch).float())
        if with_r1:
            # Of the augmented image, where the critic is evaluated: its own gradient, whatever the augmentation is.
            loss = loss + self.settings.r1 / 2 * self.settings.r1_every * squared_gradient(logits, real).mean()
        if self.settings.gradient_penalty:
            loss = loss + self.settings.gradient_penalty * self._gradient_penalty(real.detach(), fake, batch)
        if self.settings.drift:
            loss = loss + self.settings.drift * logits.square().mean()
        return loss

    def _gradient_penalty(self, real: Tensor, fake: Tensor, batch: Batch) -> Tensor:
        """E (‖∇D(x̂)‖ − 1)², x̂ uniform on the line from each real image to a fake one (Gulrajani et al., eq. 3)."""
        share = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
        between = torch.lerp(fake.to(real), real, share).requires_grad_()
        squared = squared_gradient(self.critic(between, batch).float(), between)
        return ((squared + 1e-12).sqrt() - 1).square().mean()  # the root has no slope at 0


def critic_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """From logits (B,) of real and fake images: −log σ(real) − log(1 − σ(fake)) (Goodfellow et al., eq. 1); the
    Wasserstein estimate with its sign turned (Gulrajani et al., eq. 2); or hinge (Lim & Ye 2017, arXiv 1705.02894)."""
    if kind == "non-saturating":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    if kind == "wasserstein":
        return fake.mean() - real.mean()
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def generator_loss(kind: str, fake: Tensor) -> Tensor:
    """−log σ(fake), which does not saturate where the critic wins (Goodfellow et al., sec. 3), or −fake."""
    return F.softplus(-fake).mean() if kind == "non-saturating" else -fake.mean()


def squared_gradient(logits: Tensor, images: Tensor) -> Tensor:
    """(B,) ‖∇ logit‖² with respect to its image; R1 is its mean over real images times γ/2 (Mescheder et al., eq. 9).
    Exact for critics that judge each image alone."""
    slope, = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return slope.float().square().flatten(1).sum(1)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """What is computed inside passes gradients through `network`, but leaves none in its weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
