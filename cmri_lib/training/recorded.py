"""Gradients that a GPU computes without Python: recorded once as a CUDA graph, then replayed.

A small network's step is a thousand short kernels, and a GPU waits for whoever launches them. Replayed, they follow each other
by themselves. NVIDIA, "CUDA C++ Programming Guide", section CUDA Graphs; docs.pytorch.org/docs/stable/notes/cuda.html.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cmri_lib.training.batches import Batch

#: Calls that are computed as ever before one is recorded: the first ones choose their kernels.
WARM_UP = 3


class Recorded:
    """``loss = recorded(batch)`` does what ``compute(batch)`` does: the loss of a batch, whose gradient it leaves in the
    parameters.

    A replay reads and writes the same memory each time. So a batch is copied to where the first one lay, and the parameters are
    given the gradients that this recording writes: another one may share them. What is drawn at random depends, as ever, on the
    seed before the call.

    Args:
        compute: on tensors of the same shapes in every call, all on the GPU; it sets the gradients to None, and then must not
            wait for a number from the GPU, nor do other things in one call than in the next.
        parameters: those that get a gradient.
    """

    def __init__(self, compute: Callable[[Batch], Tensor], parameters: Sequence[nn.Parameter]):
        self.compute, self.parameters, self.calls = compute, parameters, 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch) -> Tensor:
        self.calls += 1
        if self.calls <= WARM_UP:
            return self._warm_up(batch)
        if self.graph is None:
            self._record(batch)
        for name, tensor in self.given.items():
            tensor.copy_(batch[name])
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients):
            parameter.grad = gradient
        return self.loss

    def _warm_up(self, batch: Batch) -> Tensor:
        """Not on the stream on which all else runs, for a recording could not follow it there."""
        aside, here = torch.cuda.Stream(), torch.cuda.current_stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            loss = self.compute(batch)
        here.wait_stream(aside)
        return loss

    def _record(self, batch: Batch) -> None:
        """Nothing is computed here: the graph knows what to do, and has not done it."""
        self.given = {name: tensor.clone() for name, tensor in batch.items()}
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = self.compute(self.given)
        self.gradients = [parameter.grad for parameter in self.parameters]
