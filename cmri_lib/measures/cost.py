"""Cost: seconds per image, network evaluations, memory, parameters and images seen."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import psutil
import torch
from torch import nn

from cmri_lib.measures.statistics.bootstrap import Score, mean_score


def peak_memory(device: torch.device) -> float:
    """Peak memory in GiB: of the GPU's allocator where CUDA is the `device`, else of this process since it began.

    The process' peak never falls, so on a CPU it bounds what the last step needed from above.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if psutil.WINDOWS:
        return psutil.Process().memory_info().peak_wset / 2**30
    import resource  # which Windows lacks

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if psutil.MACOS else 2**20)  # macOS counts bytes, Linux KiB


def memory_for_gradient(loss: Callable[[], torch.Tensor], network: nn.Module) -> float:
    """MiB of activations that computing ``loss()`` keeps for its gradient: what is kept twice is counted once, the parameters
    of `network` are not counted. The same on every device, without what a library takes beside it while it computes."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held until all are counted, so that no other takes an address

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss()
    return sum(storage.nbytes() for place, storage in kept.items() if place not in own) / 2**20


def seconds_per_image(sample: Callable[[int], object], images: int, repeats: int = 3) -> Score:
    """Median seconds per image of ``sample(images)`` after one unmeasured call; low and high are the fastest and the
    slowest repeat, n is `repeats`."""
    _taken(sample, images)
    seconds = [_taken(sample, images) / images for _ in range(repeats)]
    return Score(float(np.median(seconds)), min(seconds), max(seconds), n=repeats)


def log_time_ratio(first: Callable[[int], object], second: Callable[[int], object], images: int, repeats: int = 20, *,
                   times: float = 1.0) -> Score:
    """log10 of the seconds of ``first(images)``, `times` over, divided by those of ``second(images)``.

    The two take turns, so that what else the machine does falls on both. The value is the mean over the rounds, n their
    number, the interval that of their bootstrap. `times`: a sampler of 1000 equal steps need not be run in full.
    """
    both = first, second
    taken = np.array([[_taken(sample, images) for sample in both] for _ in range(1 + repeats)])[1:]  # the first is not measured
    return mean_score(np.log10(times * taken[:, 0] / taken[:, 1]), np.arange(repeats))


def _taken(sample: Callable[[int], object], images: int) -> float:
    """Seconds of ``sample(images)``; on a GPU kernels run on after the call has returned."""
    started = time.perf_counter()
    sample(images)
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - started


def cost(sample: Callable[[int], object], network: nn.Module, *, images: int, evaluations: int, images_seen: int,
         images_before: int, training_seconds: float | None, repeats: int = 3) -> list[dict[str, object]]:
    """Rows of axis "cost": what it took to train a generator and what a sample takes.

    Args:
        sample: draws so many images, e.g. ``lambda n: generator.sample(masks[:n])``.
        network: everything with parameters that sampling uses.
        images: how many to draw at once.
        evaluations: network evaluations per image (NFE).
        images_seen: in its training. images_before: by what it starts from and by its first stage.
        training_seconds: of the training log; None where its seconds are another kind of machine's.

    Returns:
        ``seconds_per_image`` (with fastest and slowest repeat), ``nfe``, ``peak_memory_gib``,
        ``parameters``, ``images_seen``, ``images_before``, and ``training_seconds`` if they are known. A cost has neither
        floor nor ceiling; what is counted has no interval.
    """
    exact = {"nfe": evaluations, "parameters": sum(p.numel() for p in network.parameters()),
             "images_seen": images_seen, "images_before": images_before}
    if training_seconds is not None:
        exact["training_seconds"] = training_seconds
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    timed = seconds_per_image(sample, images, repeats)
    exact["peak_memory_gib"] = peak_memory(device)
    counted = [Score(float(value), float("nan"), float("nan"), n=1).row(name, "cost", "lower")
               for name, value in exact.items()]
    return [timed.row("seconds_per_image", "cost", "lower"), *counted]
