"""Feature spaces of residual networks trained elsewhere, where their weights are present.

The study's own features come from a small residual encoder, so ``frechet_study`` is its Fréchet ResNet distance. To
compare with numbers of other papers, put weights of a ResNet trained on radiological images (RadImageNet, Mei et al.,
Radiology: AI 4(5), 2022) or on photographs (torchvision) as safetensors into one folder and name it in the environment
variable `VARIABLE`. Nothing is downloaded, and nothing is unpickled: convert a checkpoint once, where you trust it, by
``safetensors.torch.save_file(torch.load("ResNet50.pt", weights_only=True), "radimagenet_resnet50.safetensors")``.

| file | network | input |
|---|---|---|
| ``radimagenet_resnet50.safetensors`` | ResNet-50 | 224², three equal channels in [−1, 1] |
| ``imagenet_resnet50.safetensors`` | ResNet-50 | 224², three equal channels, standardised as photographs are |
| ``imagenet_resnet18.safetensors`` | ResNet-18 | the same |
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets import resnet18, resnet50
from safetensors.torch import load_file
from torch import Tensor, nn

from cmri_lib.errors import CheckpointError
from cmri_lib.measures.instruments.frozen import fingerprint, freeze, in_batches

VARIABLE = "CMRI_FEATURE_WEIGHTS"
#: Side to which images are resized, in pixels.
SIDE = 224
#: Children of a torchvision ResNet by position, as checkpoints name them that wrap them in nn.Sequential (RadImageNet).
POSITIONS = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}


@dataclass(frozen=True)
class Known:
    """A network whose weights can be used: builder, feature dimension, and the mean and deviation its input wants, per
    channel, of intensities in [0, 1]."""

    build: type
    dimension: int
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    deviation: tuple[float, float, float] = (0.5, 0.5, 0.5)


PHOTOGRAPHS = {"mean": (0.485, 0.456, 0.406), "deviation": (0.229, 0.224, 0.225)}
NETWORKS = {"radimagenet_resnet50": Known(resnet50, 2048), "imagenet_resnet50": Known(resnet50, 2048, **PHOTOGRAPHS),
            "imagenet_resnet18": Known(resnet18, 512, **PHOTOGRAPHS)}


class ExternalFeatures:
    """A frozen residual network: images (N, 1, H, W) in [−1, 1] → (N, `dimension`) float64.

    With 512 or 2,048 features and some hundred slices the covariance is singular: read KID, or the Fréchet distance
    against a floor of the same n only.

    Raises:
        CheckpointError: if `file` is not one of `NETWORKS` or does not hold its weights.
    """

    def __init__(self, file: str | Path):
        file = Path(file)
        if file.stem not in NETWORKS:
            raise CheckpointError(f"no network is known as {file.stem!r}", file=file,
                                  remedy=f"name it as one of {list(NETWORKS)}")
        self.name, known = file.stem, NETWORKS[file.stem]
        self.dimension = known.dimension
        self.network = freeze(load_resnet(known.build, file))
        self.fingerprint = fingerprint(self.network)
        self.mean, self.deviation = (torch.tensor(v)[None, :, None, None] for v in (known.mean, known.deviation))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return in_batches(self._forward, images, torch.device("cpu")).double().numpy()

    def _forward(self, images: Tensor) -> Tensor:
        resized = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        return self.network(((resized + 1) / 2 - self.mean) / self.deviation)


def load_resnet(build: type, file: Path) -> nn.Module:
    """MONAI's two-dimensional ResNet with torchvision's strides, pooled features (B, D) as output, weights from `file`.

    MONAI names its parameters as torchvision does. Accepted besides: a common prefix (``module.``, ``backbone.``), the
    children by `POSITIONS`, and a classifier ``fc``, which is left out.

    Raises:
        CheckpointError: if a weight is missing, superfluous or of another shape.
    """
    network = build(spatial_dims=2, n_input_channels=3, conv1_t_stride=2, shortcut_type="B", bias_downsample=False,
                    feed_forward=False)
    wanted, given = network.state_dict(), {}
    for name, tensor in load_file(file).items():
        if (name := _monai_name(name)) is not None:
            given[name] = tensor
    for counter in set(wanted) - set(given):
        if counter.endswith("num_batches_tracked"):
            given[counter] = wanted[counter]  # only of use in training; some exports leave it out
    wrong = sorted(set(wanted) ^ set(given)) or sorted(k for k in wanted if wanted[k].shape != given[k].shape)
    if wrong:
        raise CheckpointError(f"{len(wrong)} weights are missing, superfluous or misshapen, e.g. {wrong[0]}", file=file,
                              remedy="save the state dictionary of a torchvision ResNet of this depth")
    network.load_state_dict(given)
    return network


def _monai_name(name: str) -> str | None:
    name = re.sub(r"^(module\.|backbone\.|model\.)+", "", name)
    first, _, rest = name.partition(".")
    return None if first == "fc" else f"{POSITIONS.get(first, first)}.{rest}"


def available_features(folder: str | Path | None = None) -> list[ExternalFeatures]:
    """All external spaces whose weights lie in `folder`, by default the one `VARIABLE` names; none is no error.

    Raises:
        CheckpointError: if the folder is named and does not exist.
    """
    folder = folder or os.environ.get(VARIABLE)
    if not folder:
        return []
    if not Path(folder).is_dir():
        raise CheckpointError("no such folder", file=folder, field=VARIABLE,
                              remedy="unset it or name the folder of the weights")
    return [ExternalFeatures(f) for name in NETWORKS if (f := Path(folder) / f"{name}.safetensors").exists()]
