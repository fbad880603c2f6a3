"""What every generator is: something the one loop trains and that turns conditions into images.

`draw` is the only way from a trained generator to a synthetic `Slices`.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import SplitError
from cmri_lib.networks.conditioning import Batch, Conditioning
from cmri_lib.training.loop import Trainable, mixed_seed

#: What a generator may learn from. Test and hold-out patients are for measuring.
LEARN_FROM = ("train", "validation")


class Generator(Trainable):
    """A network + an objective (`loss`) + a sampler (`sample`) + a conditioning.

    Attributes:
        conditioning: what it is told besides noise.
    """

    conditioning: Conditioning

    @property
    @abstractmethod
    def nfe(self) -> int:
        """Network evaluations per image of the default sampler."""

    @abstractmethod
    def sample(self, noise: Tensor, batch: Batch, **choices: object) -> Tensor:
        """Images (B, 1, H, W) in [−1, 1] from standard normal `noise` (B, 1, H, W) and the conditions in `batch`;
        `choices` override the default sampler."""


def batch_of(slices: Slices) -> Batch:
    """The tensors a generator trains on: image (N, 1, H, W) float32, mask (N, H, W) uint8, tissues if known."""
    tensors = {"image": torch.from_numpy(slices.images), "mask": torch.from_numpy(slices.masks)}
    return tensors | ({} if slices.tissues is None else {"tissues": torch.from_numpy(slices.tissues)})


def training_batch(slices: Slices, conditioning: Conditioning) -> Batch:
    """`batch_of` with only what `conditioning` reads. Refuses test and hold-out patients (SplitError)."""
    if wrong := sorted(set(slices.table["split"]) - set(LEARN_FROM)):
        raise SplitError(f"slices of {wrong} offered for training", field="split",
                         remedy='train on slices.where(split="train")')
    return {k: v for k, v in batch_of(slices).items() if k in ("image", *conditioning.fields)}


@torch.no_grad()
def draw(generator: Generator, conditions: Slices, source: str, *, seed: int = 0, batch: int = 16,
         **choices: object) -> Slices:
    """One synthetic slice for every slice of `conditions`, whose masks and metadata it inherits.

    The noise of sample i depends on (seed, i) alone, so neither batch size nor device changes what is drawn. An
    unconditional generator has no mask to follow: its samples get an empty one, and each counts as its own patient.

    Args:
        source: the system's id, for the table.
        seed: of the noise.
        batch: images evaluated at once; small ones are faster on a CPU.
        choices: for `Generator.sample`, e.g. ``steps=4``.
    """
    device = next(generator.parameters()).device
    given = {k: v for k, v in batch_of(conditions).items() if k in generator.conditioning.fields}
    generator.eval()
    images = []
    for start in tqdm(range(0, len(conditions), batch), desc=f"draw {source}", mininterval=2.0, unit="batch"):
        rows = range(start, min(start + batch, len(conditions)))
        noise = torch.stack([_noise(mixed_seed(seed, i), conditions.size) for i in rows]).to(device)
        part = {k: v[start:start + batch].to(device) for k, v in given.items()}
        images.append(generator.sample(noise, part, **choices).clamp(-1, 1).float().cpu().numpy())
    return _as_slices(np.concatenate(images), conditions, source, bool(generator.conditioning.fields))


def _noise(seed: int, size: int) -> Tensor:
    return torch.randn(1, size, size, generator=torch.Generator().manual_seed(seed))


def _as_slices(images: np.ndarray, conditions: Slices, source: str, conditional: bool) -> Slices:
    if conditional:
        table = conditions.table.assign(source=source)
        return Slices(images, conditions.masks, table, conditions.tissues)
    names = [f"synthetic-{i:05d}" for i in range(len(images))]
    table = conditions.table.assign(source=source, patient=names, scan=names,
                                    vendor="unknown", disease="unknown", phase="unknown", level="unknown")
    return Slices(images, np.zeros_like(conditions.masks), table)


