"""A network that reads the ejection fraction and the volumes of a ventricle from images, without a segmentation in between.

What such a network has seen rarely it reads badly: most hearts of a cohort have a normal ejection fraction (EF), so it leans
towards that. Gheorghiță et al. (Scientific Reports 12:2391, 2022) train it first on synthetic hearts whose EFs are uniform.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from monai.networks.nets import Regressor
from torch import Tensor, nn

from cmri_lib.cohort.cardiac_function import SCAN, phenotype_table
from cmri_lib.cohort.case import PHASES
from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.stacks import as_volumes, resampled
from cmri_lib.errors import DataError
from cmri_lib.training import Augment, Trainable, TrainSettings, train

#: What is read, of the LV: columns of `phenotype_table`, in % and mL.
TARGETS = ("lvef", "lvedv", "lvesv")
#: mm that count as 1 for the network.
LENGTH = 100.0


@dataclass(frozen=True)
class HeartPairs:
    """Scans at both phases.

    Attributes:
        images: (N, 2 · planes, S, S) float32, the planes of ED from apex to base, then those of ES.
        lengths: (N, 2) float32, mm from the most apical to the most basal plane at ED and ES; no image shows them.
        targets: (N, 3) float32 of `TARGETS`.
        table: patient and scan.
    """

    images: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray
    table: pd.DataFrame

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: np.ndarray) -> HeartPairs:
        """The scans at `index`."""
        return HeartPairs(self.images[index], self.lengths[index], self.targets[index],
                          self.table.iloc[index].reset_index(drop=True))


def heart_pairs(slices: Slices, planes: int) -> HeartPairs:
    """The scans of `slices` that have both phases and an EF, each phase resampled to `planes` planes (`stacks.resampled`); the
    targets are those of the masks of `slices`, all of a scan's slices counted.

    Raises:
        DataError: if there is none, or as `phenotype_table` and `resampled`.
    """
    known = phenotype_table(slices).dropna(subset=list(TARGETS)).set_index(SCAN)[list(TARGETS)]
    stacks = resampled(slices, planes)
    volumes, _ = as_volumes(stacks, planes)
    first = stacks.table.iloc[::planes].reset_index(drop=True)
    place = first.assign(row=first.index).pivot(index=SCAN, columns="phase", values="row").reindex(columns=PHASES).dropna()
    place = place.loc[place.index.intersection(known.index, sort=False)].astype(int)
    if place.empty:
        raise DataError("no scan has both phases and an ejection fraction", field="phase",
                        remedy="give whole scans at ED and ES")
    lengths = (planes - 1) * first["slice_mm"].to_numpy(np.float32)
    return HeartPairs(np.concatenate([volumes[place[phase]] for phase in PHASES], axis=1),
                      np.stack([lengths[place[phase]] for phase in PHASES], axis=1),
                      known.loc[place.index].to_numpy(np.float32), place.index.to_frame(index=False))


class EjectionRegression(Trainable):
    """MONAI's regressor, a strided CNN, whose last features meet the lengths of the stacks. Its error is mean squared, of
    targets standardised by `centre` and `spread` (3,)."""

    def __init__(self, planes: int, size: int, centre: np.ndarray, spread: np.ndarray):
        super().__init__()
        self.features = Regressor((2 * planes, size, size), (32,), channels=(32, 48, 64), strides=(2, 2, 2))
        self.head = nn.Sequential(nn.SiLU(), nn.Linear(32 + 2, 32), nn.SiLU(), nn.Linear(32, len(TARGETS)))
        self.register_buffer("centre", torch.as_tensor(centre, dtype=torch.float32))
        self.register_buffer("spread", torch.as_tensor(spread, dtype=torch.float32))

    def standardised(self, images: Tensor, lengths: Tensor) -> Tensor:
        """(B, 3)."""
        return self.head(torch.cat([self.features(images), lengths / LENGTH], dim=1))

    def loss(self, batch: dict[str, Tensor], group: str) -> Tensor:
        wanted = (batch["target"] - self.centre) / self.spread
        return nn.functional.mse_loss(self.standardised(batch["image"], batch["length"]), wanted)

    @torch.no_grad()
    def read(self, pairs: HeartPairs) -> np.ndarray:
        """(N, 3) of `TARGETS`, in their units."""
        self.eval()
        device = self.centre.device
        given = torch.from_numpy(pairs.images).to(device), torch.from_numpy(pairs.lengths).to(device)
        parts = [self.standardised(*part) for part in zip(*(t.split(64) for t in given))]
        return (self.centre + self.spread * torch.cat(parts)).cpu().numpy()


def fit_regression(pairs: HeartPairs, like: HeartPairs, settings: TrainSettings, folder: str | Path,
                   start: EjectionRegression | None = None) -> EjectionRegression:
    """A network trained on `pairs`, or loaded if `folder` holds this very training.

    Args:
        like: the scans whose mean and SD standardise the targets; the same ones for trainings that follow each other.
        start: a trained network to start from.

    Raises:
        DataError: on fewer than two scans in `like`.
    """
    if len(like) < 2:
        raise DataError(f"{len(like)} scans have no spread", field="like", remedy="give at least two scans with both phases")
    torch.manual_seed(settings.seed)
    spread = np.maximum(like.targets.std(axis=0), 1.0)
    model = EjectionRegression(pairs.images.shape[1] // 2, pairs.images.shape[-1], like.targets.mean(axis=0), spread)
    if start is not None:
        model.load_state_dict(start.state_dict())
    data = {"image": pairs.images, "length": pairs.lengths, "target": pairs.targets}
    # No change of size: it would change the volumes that are asked for.
    train(model, {name: torch.from_numpy(values) for name, values in data.items()}, settings, folder,
          augment=Augment(scale=0.0))
    return model


def reading_errors(model: EjectionRegression, pairs: HeartPairs) -> pd.DataFrame:
    """One row per scan and target: patient, scan, index (of `TARGETS`), true, predicted, error (predicted − true)."""
    rows = [pairs.table.assign(index=name, true=pairs.targets[:, k], predicted=found) for k, (name, found) in
            enumerate(zip(TARGETS, model.read(pairs).T))]
    table = pd.concat(rows, ignore_index=True)
    return table.assign(error=table["predicted"] - table["true"])
