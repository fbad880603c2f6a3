"""Which images make a step: a permutation for each epoch, drawn from (seed, epoch),
and what a pool of images is given at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from cmri_lib.errors import ParameterError
from cmri_lib.training.settings import TrainSettings

Batch = dict[str, Tensor]
#: (images of a pool, source of random numbers) → tensors that join their batches.
Couple = Callable[[Batch, torch.Generator], Batch]


def mixed_seed(*parts: int) -> int:
    """One 62-bit seed from several integers, so that neighbouring steps share no randomness."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = ((value ^ (part + 0x632BE59BD9B4E019)) * 0xBF58476D1CE4E5B9) % 2**64
        value ^= value >> 31
    return value >> 2


def seed_draws(device: torch.device, *parts: int) -> None:
    """Seed what is drawn on `device` and on the CPU by ``mixed_seed(*parts)``. `torch.manual_seed` also seeds devices that are
    not in use, and notes the stack of calls for each: more than a millisecond of every step."""
    seed = mixed_seed(*parts)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type != "cpu":
        torch.manual_seed(seed)


class Batches:
    """``batches.of(step, rank)``: the images of a step for one of the processes that share it.

    Args:
        data: named tensors of one length N, on the device.
        processes: how many share a batch.
        pool, couple: see `Trainable`.

    Raises:
        ParameterError: if the processes cannot share a batch, or a pool holds no whole number of batches.
    """

    def __init__(self, data: Mapping[str, Tensor], settings: TrainSettings, processes: int, pool: int, couple: Couple):
        if settings.batch % processes:
            raise ParameterError(f"{settings.batch} images for {processes} processes", field="batch",
                                 remedy="give a multiple of the number of processes")
        if pool % settings.batch:
            raise ParameterError(f"pools of {pool} images for batches of {settings.batch}", field="pool",
                                 remedy="give a multiple of the batch, or 0")
        self._data, self._count = data, len(next(iter(data.values())))
        self._seed, self._batch, self._share = settings.seed, settings.batch, settings.batch // processes
        self._size, self._couple = pool, couple
        self._order: tuple[int, Tensor | None] = (-1, None)
        self._coupled: tuple[int, Batch] = (-1, {})

    def of(self, step: int, rank: int) -> Batch:
        """Rows of `data`, and what they were given in their pool."""
        first = step * self._batch + rank * self._share
        batch = self._rows(first, self._share)
        if not self._size:
            return batch
        pool, place = divmod(first, self._size)
        return batch | {name: tensor[place:place + self._share] for name, tensor in self._pool(pool).items()}

    def _rows(self, first: int, count: int) -> Batch:
        """So many images from the position `first` of the whole training's order."""
        epoch, place = divmod(first, self._count)
        parts: list[Tensor] = []
        while count > 0:  # a batch may end in another epoch than it begins, or hold several
            parts.append(self._permutation(epoch)[place:place + count])
            epoch, place, count = epoch + 1, 0, count - len(parts[-1])
        index = torch.cat(parts)
        return {name: tensor[index.to(tensor.device)] for name, tensor in self._data.items()}

    def _permutation(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(mixed_seed(self._seed, -1, epoch))
            self._order = epoch, torch.randperm(self._count, generator=generator)
        return self._order[1]

    def _pool(self, pool: int) -> Batch:
        if self._coupled[0] != pool:
            generator = torch.Generator().manual_seed(mixed_seed(self._seed, -3, pool))
            self._coupled = pool, self._couple(self._rows(pool * self._size, self._size), generator)
        return self._coupled[1]
