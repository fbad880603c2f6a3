"""Features of a ResNet-50 whose weights the user has: trained on ImageNet or RadImageNet, as other papers measure with.

The study ships no such weights. Whoever has them names a file in ``params.yaml`` (``instruments.published``), and the distances
of other papers stand beside the study's own, in their textbook form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from monai.networks.nets import ResNet
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import interpolate

from cmri_lib.errors import DataError
from cmri_lib.measures.instruments.frozen import fingerprint, freeze, in_batches

#: Mean and standard deviation of the channels of ImageNet, for grey values in [0, 1].
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: Where a file comes from whose layers have other names.
REMEDY = "give the state of a torchvision ResNet-50, saved with safetensors.torch.save_file"


class PublishedFeatures:
    """Images (N, 1, H, W) in [−1, 1] → features (N, 2048): the last maps of a ResNet-50 (He et al., CVPR 2016), averaged.

    Images are enlarged to 224 × 224 pixels, and their one channel serves as three.

    Args:
        file: safetensors with torchvision's names, ``layer1.0.conv1.weight`` and so on; a classifier ``fc`` is left out.
        intensity: what they were trained with: "imagenet", its mean and standard deviation of each channel, or
            "symmetric", [−1, 1], as RadImageNet.

    Raises:
        DataError: if there is no such file, or its tensors are not those of a ResNet-50.
    """

    name, dimension, side = "published", 2048, 224

    def __init__(self, file: str | Path, intensity: Literal["imagenet", "symmetric"] = "imagenet"):
        try:
            tensors = {name: value for name, value in load_file(file).items() if not name.startswith("fc.")}
        except (OSError, SafetensorError) as cause:
            raise DataError(f"the weights cannot be read ({cause})", file=file, field="instruments.published.weights",
                            remedy=REMEDY) from cause
        network = resnet50()
        try:
            network.load_state_dict(tensors)
        except RuntimeError as cause:
            raise DataError(f"these are no weights of a ResNet-50 ({str(cause).splitlines()[-1].strip()})", file=file,
                            field="instruments.published.weights", remedy=REMEDY) from cause
        self.network, self.fingerprint = freeze(network), fingerprint(network)
        mean, spread = IMAGENET if intensity == "imagenet" else ((0.5,) * 3, (0.5,) * 3)
        self.mean, self.spread = (torch.tensor(values)[:, None, None] for values in (mean, spread))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return in_batches(lambda x: self.network(self.prepared(x)), images, torch.device("cpu")).double().numpy()

    def prepared(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) in [−1, 1] → (N, 3, 224, 224) as the network was trained."""
        large = interpolate(images, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True)
        return ((large.clamp(-1, 1) + 1) / 2 - self.mean) / self.spread


def resnet50() -> ResNet:
    """A ResNet-50 for three channels without its classifier; its tensors have torchvision's names."""
    return ResNet("bottleneck", [3, 4, 6, 3], [64, 128, 256, 512], spatial_dims=2, n_input_channels=3, conv1_t_stride=2,
                  feed_forward=False, bias_downsample=False)
