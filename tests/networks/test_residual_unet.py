"""The residual U-Net: shapes, a residual block that is the identity, the weights of deep supervision, mirror images."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cmri_lib.networks.residual_unet import SLOPE, DeepSupervision, Mirrored, ResidualBlock, ResidualUNet
from cmri_lib.networks.segmentation import dice_cross_entropy


@pytest.mark.parametrize(("widths", "sides"), [((8,) * 2, [32]), ((8,) * 3, [32]), ((8,) * 4, [32, 16]),
                                               ((8,) * 5, [32, 16, 8])])
def test_every_head_has_half_the_resolution_of_the_one_above(widths: tuple[int, ...], sides: list[int]) -> None:
    network = ResidualUNet(4, widths, (1,) * len(widths))
    pyramid = network.pyramid(images := torch.randn(2, 1, 32, 32))
    assert [logits.shape for logits in pyramid] == [(2, 4, side, side) for side in sides]
    assert torch.equal(network(images), pyramid[0])


def test_an_image_does_not_see_its_neighbours() -> None:
    network, images = ResidualUNet(4, (8, 8, 8), (1, 1, 1)), torch.randn(3, 1, 16, 16)
    assert torch.allclose(network(images)[1:2], network(images[1:2]), atol=1e-5)


def test_a_block_whose_convolutions_are_silent_is_its_activation() -> None:
    block, x = ResidualBlock(4, 4), torch.randn(2, 4, 8, 8)
    block.body[-1][1].weight.data.zero_()
    assert torch.equal(block(x), F.leaky_relu(x, SLOPE))


def test_all_weights_learn() -> None:
    network = ResidualUNet()
    DeepSupervision()(network.pyramid(torch.randn(2, 1, 32, 32)), torch.randint(0, 4, (2, 32, 32))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_deep_supervision_halves_the_weight_with_the_resolution() -> None:
    coarse = torch.randint(0, 4, (2, 4, 4))
    masks = coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)  # alike at every resolution
    pyramid = [torch.randn(2, 4, side, side) for side in (16, 8, 4)]
    each = [dice_cross_entropy()(p, coarse.repeat_interleave(k, 1).repeat_interleave(k, 2)[:, None])
            for p, k in zip(pyramid, (4, 2, 1))]
    wanted = (4 * each[0] + 2 * each[1] + each[2]) / 7
    assert DeepSupervision()(pyramid, masks).item() == pytest.approx(wanted.item(), rel=1e-6)
    assert DeepSupervision()(pyramid[:1], masks).item() == pytest.approx(each[0].item(), rel=1e-6)


def test_mirror_images_are_mirrored_back() -> None:
    network, images = ResidualUNet(4, (8, 8), (1, 1)), torch.randn(2, 1, 16, 16)
    mirrored = Mirrored(network)
    assert torch.allclose(mirrored(images).sum(1), torch.ones(2, 16, 16), atol=1e-5)
    assert torch.allclose(mirrored(images.flip(3)), mirrored(images).flip(3), atol=1e-5)
    logits = torch.randn(2, 4, 16, 16)
    assert torch.allclose(Mirrored(torch.nn.Identity())(logits), logits.softmax(1)), "what acts pixel by pixel does not change"
