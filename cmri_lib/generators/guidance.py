"""Classifier-free guidance: follow a condition more closely than it was learnt.

Ho & Salimans, "Classifier-Free Diffusion Guidance", 2022 (arXiv 2207.12598). Serves diffusion and flow alike, whatever
the network predicts (ε, v, x_0, velocity), because each is a linear function of the score at a given x_t.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.generators.base import Generator
from cmri_lib.networks.conditioning.base import Batch
from cmri_lib.networks.conditioning.embeddings import drop_fields


class Guided(nn.Module):
    """f(x, t, hidden) + w · (f(x, t, condition) − f(x, t, hidden)), eq. 6 with 1 + w of the paper called w.

    Args:
        network: a denoiser trained with conditions hidden at times (`embeddings.CompositeConditioning`).
        fields: the conditions that are followed more closely; the others are given to both evaluations.
        scale: w. 1 is the plain conditional network, evaluated once; 0 the one without the condition.
    """

    def __init__(self, network: nn.Module, fields: Sequence[str], scale: float):
        super().__init__()
        self.network, self.fields, self.scale = network, tuple(fields), scale

    def forward(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        if self.scale == 1:
            return self.network(x, t, batch)
        free = self.network(x, t, drop_fields(batch, self.fields))
        return free if self.scale == 0 else free + self.scale * (self.network(x, t, batch) - free)


@contextmanager
def guided(generator: Generator, scale: float, fields: Sequence[str] | None = None) -> Iterator[Generator]:
    """``with guided(flow, 2.0): draw(flow, …)``; `fields` default to all conditions of the generator.

    Raises:
        ParameterError: if the generator has no denoising network, or is not conditioned on one of `fields`.
    """
    known = generator.conditioning.fields
    fields = known if fields is None else tuple(fields)
    if not hasattr(generator, "network") or set(fields) - set(known):
        raise ParameterError(f"{fields}, the generator is conditioned on {known}", field="fields",
                             remedy="guide a diffusion or flow by conditions it was trained with")
    network = generator.network
    generator.network = Guided(network, fields, scale)
    try:
        yield generator
    finally:
        generator.network = network
