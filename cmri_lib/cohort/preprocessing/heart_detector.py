"""Where is the heart? A small U-Net that sees the whole field of view at 6 mm per pixel and never a mask.

Trained on training patients only, by the study's one loop. At inference it reads images alone, so that the crop of a
test scan cannot depend on its label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet
from scipy import ndimage
from torch import Tensor

from cmri_lib.cohort.case import LABELS, PHASES, Case
from cmri_lib.cohort.preprocessing.intensity import clip_percentiles, minmax
from cmri_lib.cohort.preprocessing.resample import Window, middle, resample_image, resample_labels
from cmri_lib.errors import DataError
from cmri_lib.training import Augment, TrainSettings, Trainable, train

#: The detector's view: pixels per side and mm. 384 mm holds the field of view of a short-axis cine scan.
VIEW_SIZE, VIEW_MM = 64, 384.0
#: Wider than a segmenter's: other vendors differ in contrast, and technicians in where they place the heart.
DETECTOR_AUGMENT = Augment(rotation=30.0, scale=0.25, shift=0.2, gamma=0.7, contrast=0.3, noise=0.15)

#: Lower than what the detectors of the phantom and of ACDC give any scan of their own cohort, higher than what they give
#: the scans of the other cohort of whose hearts they cut off more than 1 % (profile laptop). So it is on validation patients
#: alone: ACDC's detector is at least .57 sure of its own and .40 of the phantom's, none cut; the phantom's cuts two hearts of
#: ACDC's ten, of which it is .28 and .35 sure.
SURE = 0.4


class HeartNet(Trainable):
    """Logit of heart (LV, Myo or RV) per pixel: (B, 1, 64, 64) → (B, 1, 64, 64). 0.1 million weights."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = BasicUNet(spatial_dims=2, in_channels=1, out_channels=1, features=(8, 8, 16, 32, 64, 8),
                              norm=("group", {"num_groups": 4}))

    def loss(self, batch: dict[str, Tensor], group: str) -> Tensor:
        """Cross-entropy plus soft Dice over the batch, because the heart fills 8 % of the view."""
        logits, heart = self.unet(batch["image"])[:, 0], (batch["mask"] > 0).float()
        share = torch.sigmoid(logits)
        dice = (2 * (share * heart).sum() + 1) / (share.sum() + heart.sum() + 1)
        return F.binary_cross_entropy_with_logits(logits, heart) + 1 - dice


@dataclass(frozen=True)
class Found:
    """A detector's answer: `centre` (row, column) in pixels of the stored image; `confidence` in [0, 1], the peak of
    `heart_map` times the share of its probability that lies in the region of the answer. Low where slices disagree, where
    nothing looks like a heart, or where several places do: on scans unlike those that the detector has learnt from."""

    centre: tuple[float, float]
    confidence: float


class Detector:
    """A trained `HeartNet`.

    Attributes:
        network: the network, in eval mode.
        patients: whom it was trained on.
        sure: the `Found.confidence` below which the middle of the image is the better guess.
    """

    def __init__(self, network: HeartNet, patients: tuple[str, ...], sure: float = SURE):
        self.network, self.patients, self.sure = network.eval(), patients, sure
        self._found: WeakKeyDictionary[Case, Found] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_found"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _found=WeakKeyDictionary())  # another process has scans of its own

    @torch.no_grad()
    def heart_map(self, case: Case) -> np.ndarray:
        """(64, 64) mean probability of heart over all slices and both phases, on the detector's view of the scan."""
        images = torch.from_numpy(_view_images(case))
        device = next(self.network.parameters()).device
        return torch.sigmoid(self.network.unet(images.to(device))).mean(dim=(0, 1)).cpu().numpy()

    def find(self, case: Case) -> Found:
        """Where the heart is, and how sure the detector is of it. Reads no mask, and looks at a scan once.

        The centre of mass of the heaviest connected region of `heart_map` above half its maximum. Rounded to a whole
        pixel, so that the last bits of the network's arithmetic (device, threads) cannot reach the cropped images.
        """
        if case not in self._found:
            self._found[case] = self._look(case)
        return self._found[case]

    def _look(self, case: Case) -> Found:
        share = self.heart_map(case)
        regions, n = ndimage.label(share > 0.5 * share.max())
        heaviest = 1 + int(np.argmax(ndimage.sum_labels(share, regions, range(1, n + 1))))
        region = np.where(regions == heaviest, share, 0.0)
        view, spacing = _view(case), case.spacing[1:]
        row, column = (c + (p - (VIEW_SIZE - 1) / 2) * view.spacing / s
                       for c, p, s in zip(view.centre, ndimage.center_of_mass(region), spacing, strict=True))
        return Found((float(round(row)), float(round(column))), float(share.max() * region.sum() / share.sum()))

    def centre(self, case: Case) -> tuple[float, float]:
        """Centre (row, column) of the heart in pixels of the stored image, where the detector is sure of it: else the
        middle of the image, where the technician aims."""
        found = self.find(case)
        return found.centre if found.confidence >= self.sure else middle(case.volumes[PHASES[0]].image.shape[1:])


def train_detector(cases: Sequence[Case], folder: str | Path, settings: TrainSettings) -> Detector:
    """Train a detector on `cases`, the training patients, or load it if `folder` holds this very training.

    Raises:
        DataError: if there is no case.
    """
    if not cases:
        raise DataError("no scan to train the detector on", field="split",
                        remedy="put patients into the train split, or set preprocess.crop to centre")
    torch.manual_seed(settings.seed)
    network = HeartNet()
    data = {"image": torch.from_numpy(np.concatenate([_view_images(case) for case in cases])),
            "mask": torch.from_numpy(np.concatenate([_view_hearts(case) for case in cases]))}
    train(network, data, settings, folder, augment=DETECTOR_AUGMENT)
    return Detector(network, tuple(sorted({case.patient for case in cases})))


def _view(case: Case) -> Window:
    return Window(middle(case.volumes[PHASES[0]].image.shape[1:]), VIEW_SIZE, VIEW_MM)


def _view_images(case: Case) -> np.ndarray:
    """(2·Z, 1, 64, 64) in [−1, 1]: all slices of both phases, the scan's own percentiles at ±1."""
    stack = np.stack([case.volumes[phase].image for phase in PHASES])
    seen = minmax(clip_percentiles(resample_image(stack, case.spacing[1:], _view(case)), (1.0, 99.0)))
    return seen.reshape(-1, 1, VIEW_SIZE, VIEW_SIZE)


def _view_hearts(case: Case) -> np.ndarray:
    """(2·Z, 64, 64) uint8, 1 where LV, Myo or RV."""
    stack = np.stack([np.isin(case.volumes[phase].mask, list(LABELS.values())) for phase in PHASES])
    return resample_labels(stack.astype(np.uint8), case.spacing[1:], _view(case), [1]).reshape(-1, VIEW_SIZE, VIEW_SIZE)
