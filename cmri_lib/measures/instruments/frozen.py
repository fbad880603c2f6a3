"""What the study's measuring networks have in common: made from real training patients only, then frozen and named.

A feature extractor or a segmenter that has seen test patients, or synthetic images, would flatter what it judges.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError, SplitError
from cmri_lib.training.fingerprint import data_digest
from cmri_lib.training.shared import over_processes

#: Images per forward pass; on CPU a small batch stays in cache.
BATCH = 32


def refuse_all_but_training(slices: Slices, purpose: str) -> None:
    """Raise SplitError unless every slice is real and of the training split, DataError if there is none."""
    if not len(slices):
        raise DataError(f"no slices to train the {purpose} on", field="slices", remedy="check the split lists")
    foreign = sorted(set(slices.table["split"]) - {"train"})
    if foreign:
        patients = slices.where(split=foreign).patients
        raise SplitError(f"the {purpose} was given {len(set(patients))} patients of {foreign}, e.g. {patients[0]}",
                         field="split", remedy="pass slices.where(split='train')")
    if made := sorted(set(slices.table["source"]) - {"real"}):
        raise SplitError(f"the {purpose} was given synthetic slices of {made}", field="source",
                         remedy="train measuring networks on real slices only")


def freeze(network: nn.Module) -> nn.Module:
    """The network in eval mode and without gradients."""
    return network.eval().requires_grad_(False)


def fingerprint(network: nn.Module) -> str:
    """16 hexadecimal digits of the SHA-256 of all weights: names the network in a table of results."""
    return data_digest(network.state_dict())


@torch.inference_mode()
def in_batches(function, images: np.ndarray, device: torch.device) -> Tensor:
    """`function` over images (N, 1, H, W) in batches; the joined result on the CPU. Processes that Accelerate has
    launched share the batches."""
    def part(start: int) -> Tensor:
        return function(torch.from_numpy(np.ascontiguousarray(images[start:start + BATCH])).to(device)).cpu()

    return torch.cat(over_processes(part, range(0, len(images), BATCH)))
