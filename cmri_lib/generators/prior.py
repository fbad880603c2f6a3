"""Generators around another generator, their prior, which learns and draws in the place of images."""

from __future__ import annotations

from collections.abc import Sequence

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
        return self.prior.recordable

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
