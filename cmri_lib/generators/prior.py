"""Generators around another generator, their prior, which learns and draws in the place of images."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from torch import Tensor, nn

from cmri_lib.generators.base import Generator
from cmri_lib.networks.conditioning.base import Batch


class PriorGenerator(Generator):
    """A generator whose objective, optimised parameters and sampler are those of `prior`, on what `prepare` makes of images.

    Attributes:
        prior: the generator that is trained.
    """

    prior: Generator

    @property
    def recordable(self) -> bool:
        """A prior that couples pools of images would do so within the batch here, on the CPU."""
        return self.prior.recordable and not self.prior.pool

    @property
    def branch(self) -> Hashable:
        return self.prior.branch

    @property
    def nfe(self) -> int:
        """Of the prior; what stands around it is evaluated once more."""
        return self.prior.nfe

    def loss(self, batch: Batch, group: str) -> Tensor:
        return self.prior.loss(batch, group)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return self.prior.parameter_groups()

    def update_schedule(self, step: int, steps: int) -> Sequence[str]:
        return self.prior.update_schedule(step, steps)
