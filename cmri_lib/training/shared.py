"""One training, or one set of samples, on several processes that Accelerate or torchrun has launched.

Data parallelism: each process takes its share of every batch, and their gradients are averaged. Which images make a batch,
and what is drawn at random for them, must not depend on how many share it. So all processes seed a step alike, draw what one
process alone would draw, for the whole batch, and keep the rows of their share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import gather_object, parse_flag_from_env
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cmri_lib.errors import ParameterError

Part, Result = TypeVar("Part"), TypeVar("Result")


def launched() -> PartialState:
    """The processes that share the work, and which of them this is. Not ``PartialState()``: whoever asks that first overlooks
    ``ACCELERATE_USE_CPU``, and each of several processes on CPUs then believes to be alone."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def accelerator_as_launched(groups: Sized) -> Accelerator:
    """Accelerate as it was launched, for a model with these groups of parameters. Raises ParameterError if the launch would
    make the training another one."""
    # The loss of one group leaves the parameters of the others without a gradient, for which DDP would wait.
    accelerator = Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=len(groups) > 1)])
    if accelerator.mixed_precision != "no":
        raise ParameterError(f"Accelerate's launch sets {accelerator.mixed_precision}", field="mixed_precision",
                             remedy="launch with --mixed_precision no and set the training's `precision` in params.yaml")
    return accelerator


def draws_of_share(batch: int, rank: int, processes: int) -> AbstractContextManager:
    """``with draws_of_share(…):`` what is drawn for a share of a batch is its part of what is drawn for all of it. Alone a
    process draws as ever."""
    return nullcontext() if processes == 1 else _WholeBatchDraws(batch // processes, rank, processes)


def places_in_batch(count: int, device: torch.device) -> Tensor:
    """(count,) in [0, 1): i / B, where i is an image's place in the whole batch of B.
    For what is spread evenly over a batch."""
    draws = _WholeBatchDraws.active
    first, whole = (0, count) if draws is None else (draws.rank * count, draws.processes * count)
    return torch.arange(first, first + count, device=device) / whole


def over_processes(function: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """``[function(part) for part in parts]``, each process doing its share; all must call it, and all get everything."""
    state = launched()
    own = {i: function(part) for i, part in enumerate(parts) if i % state.num_processes == state.process_index}
    found = {i: result for of_one in gather_object([own]) for i, result in of_one.items()}
    return [found[i] for i in sorted(found)]


class _WholeBatchDraws(TorchFunctionMode):
    """Random tensors that have a row for each image of the share are drawn for the whole batch and cut. The axis of the rows is
    the first that is as long as the share. Other draws, single numbers say, are the same in every process.

    Left as they are: dropout inside a network, whose mask then differs from that of one process, and what a model computes from
    a batch as a whole (batch normalisation, say), which sees the share alone, as usual with data parallelism.
    """

    active: _WholeBatchDraws | None = None

    def __init__(self, share: int, rank: int, processes: int):
        super().__init__()
        self.share, self.rank, self.processes = share, rank, processes

    def __enter__(self) -> _WholeBatchDraws:
        _WholeBatchDraws.active = self
        return super().__enter__()

    def __exit__(self, *problem: object) -> None:
        _WholeBatchDraws.active = None
        super().__exit__(*problem)

    def __torch_function__(self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        kwargs = kwargs or {}
        if function not in (*_LIKE, *_SIZED) or kwargs.get("generator") is not None:
            return function(*args, **kwargs)
        if function in _LIKE:
            like = torch.empty_like(args[0])
            bounds, shape = (), like.shape
        elif "size" in kwargs:
            bounds, shape = args, kwargs["size"]
        else:
            bounds, shape = (args[:-1], args[-1]) if args and isinstance(args[-1], (tuple, list)) else ((), args)
        axis = next((k for k, length in enumerate(shape) if length == self.share), None)
        if axis is None:
            return function(*args, **kwargs)
        whole = (*shape[:axis], self.share * self.processes, *shape[axis + 1:])
        if function in _LIKE:  # numbers are drawn in the order of the memory
            drawn = function(like.new_empty(whole) if axis else like.new_empty_strided(whole, like.stride()), **kwargs)
        else:
            drawn = function(*bounds, whole, **{name: value for name, value in kwargs.items() if name != "size"})
        return drawn.narrow(axis, self.rank * self.share, self.share)


_LIKE, _SIZED = (torch.randn_like, torch.rand_like), (torch.randn, torch.rand, torch.randint)
