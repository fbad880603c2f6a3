"""What every generator is: something the one loop trains and that turns conditions into images.

`draw` is the only way from a trained generator to a synthetic `Slices`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from cmri_lib.cohort.slices import CATEGORIES, COVARIATES, PHENOTYPES, UNKNOWN, Slices
from cmri_lib.cohort.vocabulary import names_nothing
from cmri_lib.errors import DataError, SplitError
from cmri_lib.networks.conditioning.base import Batch, Conditioning
from cmri_lib.networks.conditioning.partner import PARTNER
from cmri_lib.training.batches import mixed_seed
from cmri_lib.training.loop import Trainable
from cmri_lib.training.shared import over_processes

Settings = TypeVar("Settings")
#: What a generator may learn from. Test and hold-out patients are for measuring.
LEARN_FROM = ("train", "validation")


class Generator(Trainable):
    """A network + an objective (`loss`) + a sampler (`sample`) + a conditioning.

    Attributes:
        conditioning: what it is conditioned on.
        first_stage: an autoencoder that must be trained before the generator is, or None.
    """

    conditioning: Conditioning
    first_stage: Trainable | None = None

    @property
    @abstractmethod
    def nfe(self) -> int:
        """Network evaluations per image of the default sampler."""

    @abstractmethod
    def sample(self, noise: Tensor, batch: Batch, **choices: object) -> Tensor:
        """Images (B, 1, H, W) in [−1, 1] from standard normal `noise` (B, *noise_shape) and the conditions in `batch`;
        `choices` override the default sampler."""

    def noise_shape(self, size: int) -> tuple[int, ...]:
        """Shape of one sample's noise, for images of `size` × `size`."""
        return 1, size, size

    def prepare(self, data: Batch) -> Batch:
        """What the training reads, computed once from images and conditions: latent systems encode here."""
        return data

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


def noise_stream(noise: Tensor) -> Iterator[Tensor]:
    """Fresh standard normal tensors of `noise`'s shape, without end, for samplers that draw on their way.

    Each sample has a stream of its own, seeded by its initial noise, so what is drawn for it depends neither on its
    neighbours in the batch nor on the device.
    """
    words = noise.detach().cpu().float().flatten(1)[:, :8].contiguous().view(torch.int32)
    streams = [torch.Generator().manual_seed(mixed_seed(*row)) for row in words.tolist()]
    while True:
        yield torch.stack([torch.randn(noise.shape[1:], generator=g) for g in streams]).to(noise)


def seeded_noise(seed: int, rows: Iterable[int], shape: tuple[int, ...]) -> Tensor:
    """(rows, *shape) standard normal, on the CPU: that of a row depends on the seed and its number alone."""
    streams = [torch.Generator().manual_seed(mixed_seed(seed, row)) for row in rows]
    return torch.stack([torch.randn(shape, generator=stream) for stream in streams])


def chunks(count: int, size: int) -> list[range]:
    """The numbers of `count` rows, `size` at a time."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def part_on(device: torch.device, batch: Batch, rows: range) -> Batch:
    """These rows of a batch, on a device."""
    return {field: values[rows.start:rows.stop].to(device) for field, values in batch.items()}


def parts_on(device: torch.device, batch: Batch, size: int) -> Iterator[Batch]:
    """The rows of a batch, `size` at a time, on a device."""
    return (part_on(device, batch, rows) for rows in chunks(len(next(iter(batch.values()))), size))


def batch_of(slices: Slices, conditioning: Conditioning | None = None) -> Batch:
    """The tensors a generator trains on: image (N, 1, H, W) float32 and what `conditioning` reads: mask, tissues (N, H, W)
    uint8, categories (N,) int64 codes, numbers (N,) float32, scaled, NaN where unknown, partner (N, 1, H, W) float32.

    Raises:
        DataError: on a field that these slices do not have, or a category that `conditioning` does not know.
    """
    tensors = {"image": torch.from_numpy(slices.images)}
    if conditioning is not None:
        tensors |= {field: torch.from_numpy(_field(slices, field, conditioning)) for field in conditioning.fields}
    return tensors


def _field(slices: Slices, name: str, conditioning: Conditioning) -> np.ndarray:
    if name == "mask":
        return slices.masks
    if name == "tissues" and slices.tissues is not None:
        return slices.tissues
    if name == PARTNER and slices.partners is not None:
        return slices.partners
    if name in slices.table and name in conditioning.categories:
        return _codes(slices.table[name], conditioning.categories[name])
    if name in slices.table and name in conditioning.scales:
        centre, spread = conditioning.scales[name]
        return ((pd.to_numeric(slices.table[name]).to_numpy(float) - centre) / spread).astype(np.float32)
    raise DataError("these slices do not have it", field=name, remedy="condition on what the cohort knows")


def _codes(column: pd.Series, categories: tuple[str, ...]) -> np.ndarray:
    """(N,) int64: the place of each category from 1, 0 for what is unknown."""
    codes = {**dict.fromkeys(filter(names_nothing, set(column)), 0), **{name: k for k, name in enumerate(categories, 1)}}
    if strange := sorted(set(column) - set(codes)):
        raise DataError(f"{strange[:3]} are no categories of this network", field=str(column.name),
                        remedy=f"choose among {list(categories)}, or train on a cohort that has them")
    return column.map(codes).to_numpy(np.int64, copy=True)  # pandas lends what must not be written


def training_batch(slices: Slices, conditioning: Conditioning) -> Batch:
    """`batch_of` with what `conditioning` reads. Refuses test and hold-out patients (SplitError)."""
    if wrong := sorted(set(slices.table["split"]) - set(LEARN_FROM)):
        raise SplitError(f"slices of {wrong} offered for training", field="split",
                         remedy='train on slices.where(split="train")')
    return batch_of(slices, conditioning)


def chosen_settings(settings: Settings, **given: object) -> Settings:
    """The settings of a sampler with what a call has `given` in the place of the defaults; None is not given. They check
    themselves, as all settings do."""
    return replace(settings, **{name: value for name, value in given.items() if value is not None})


@torch.no_grad()
def draw(generator: Generator, conditions: Slices, source: str, *, seed: int = 0, batch: int = 16,
         **choices: object) -> Slices:
    """One synthetic slice for every slice of `conditions`, whose masks and metadata it inherits.

    The noise of sample i depends on (seed, i) alone, so neither batch size nor device changes what is drawn; processes that
    Accelerate has launched share the batches, and all get all samples. Samples of a generator without a mask or an image as
    condition get an empty mask, and each counts as its own patient.

    Args:
        source: the system's id, for the table.
        seed: of the noise.
        batch: images evaluated at once; small ones are faster on a CPU.
        choices: for `Generator.sample`, e.g. ``steps=4``.
    """
    fields = generator.conditioning.fields
    given = {field: values for field, values in batch_of(conditions, generator.conditioning).items() if field != "image"}
    generator.eval()
    shape = generator.noise_shape(conditions.size)

    def images(rows: range) -> np.ndarray:
        noise = seeded_noise(seed, rows, shape).to(generator.device)
        return generator.sample(noise, part_on(generator.device, given, rows), **choices).clamp(-1, 1).float().cpu().numpy()

    drawn = over_processes(images, tqdm(chunks(len(conditions), batch), desc=f"draw {source}", mininterval=2.0, unit="batch"))
    return _as_slices(np.concatenate(drawn), conditions, source, fields)


def _as_slices(images: np.ndarray, conditions: Slices, source: str, fields: Sequence[str]) -> Slices:
    if {"mask", "tissues", PARTNER} & set(fields):
        return Slices(images, conditions.masks, conditions.table.assign(source=source), conditions.tissues)
    return Slices(images, np.zeros_like(conditions.masks), as_own_patients(conditions.table, source, fields))


def as_own_patients(table: pd.DataFrame, source: str, known: Collection[str], slices: int = 1) -> pd.DataFrame:
    """The table of samples that are no patient of the conditions: each has a name of its own, and of the patient in whose
    place it stands only what was asked for, the columns in `known`, and the geometry.

    Args:
        table: of the conditions.
        source: the system's id.
        slices: of each sample, one after the other.
    """
    names = np.repeat([f"synthetic-{i:05d}" for i in range(len(table) // slices)], slices)
    lost: dict[str, object] = {column: UNKNOWN for column in (*CATEGORIES, "centre") if column not in known}
    lost |= {column: np.nan for column in (*COVARIATES, *PHENOTYPES) if column in table and column not in known}
    return table.assign(source=source, patient=names, scan=names, **lost)
