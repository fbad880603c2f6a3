"""A conditional Wasserstein critic.

Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017 (arXiv 1704.00028), for the critic; Miyato & Koyama,
"cGANs with Projection Discriminator", ICLR 2018 (arXiv 1802.05637), eq. 3, for the condition.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.networks.adversarial import ResidualCritic
from cmri_lib.networks.conditioning.base import Batch, Conditioning
from cmri_lib.networks.mask_to_image import MaskToImageSettings


class ProjectionCritic(ResidualCritic):
    """(image, vector) → score (B,): U3's critic, plus how well the pooled features agree with the condition.

    No spectral norm, unlike `PatchCritic`: it holds every layer's slope below 1, while the gradient penalty asks for a
    slope of 1 from all of them together.

    Args:
        size: side of the images.
        settings: channels of the critic.
        conditioning: vector only.

    Raises:
        ParameterError: if the conditioning has no vector, or a mask, which this critic would not see.
    """

    def __init__(self, size: int, settings: MaskToImageSettings, conditioning: Conditioning):
        super().__init__(size, settings)
        conditioning.refuse_unused("vector")
        if not conditioning.width:
            raise ParameterError(f"{conditioning.name!r} is no vector", field="conditioning",
                                 remedy="condition it on categories or numbers, or take PatchCritic")
        self.conditioning = conditioning
        self.project = nn.Linear(conditioning.width, settings.critic[-1])

    def forward(self, images: Tensor, batch: Batch) -> Tensor:
        """images (B, 1, H, W) → scores (B,)."""
        features = self.blocks(self.first(images))
        pooled = F.leaky_relu(features, 0.2).mean((2, 3))
        agreement = (self.project(self.conditioning.vector(batch)) * pooled).sum(1)
        return self.last(features).squeeze(1) + agreement
