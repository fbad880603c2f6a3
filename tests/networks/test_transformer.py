"""Transformers: what holds before any training, and what self-attention can and cannot tell apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from cmri_lib.errors import ParameterError
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.conditioning.label_map import LabelMap
from cmri_lib.networks.transformer import (AdaptiveBlock, TokenTransformer, TransformerDenoiser, TransformerSettings,
                                           assemble, patches, positions)

SMALL = TransformerSettings(width=16, depth=4, heads=2, patch=2)


def randomised(network: nn.Module) -> nn.Module:
    """Random weights instead of the zeros that a new network starts with."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


def test_patches_come_back_as_the_image() -> None:
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    tokens = patches(x, 2)
    assert tokens.shape == (2, 6, 12)
    assert torch.equal(tokens[0, 4].view(3, 2, 2), x[0, :, 2:4, 2:4])  # second row, second column
    assert torch.equal(assemble(tokens, 2, 2, 3), x)


@pytest.mark.parametrize("long_skips", [False, True])
def test_a_new_denoiser_says_zero_and_its_blocks_change_nothing(long_skips: bool) -> None:
    network = TransformerDenoiser(TransformerSettings(16, 5, 2, 2, long_skips), Conditioning(), channels=3)
    assert len(network.merge) == (2 if long_skips else 0)
    x, t = torch.randn(2, 3, 8, 8), torch.rand(2)
    assert network(x, t, {}).shape == x.shape and not network(x, t, {}).any()
    tokens = torch.randn(2, 16, 16)
    assert torch.allclose(network._through_blocks(tokens, torch.randn(2, 16)), tokens)


def test_gates_open_by_training() -> None:
    block = AdaptiveBlock(16, 2)
    x, condition = torch.randn(1, 5, 16), torch.randn(1, 16)
    block(x, condition).square().sum().backward()
    gradient = block.modulation.weight.grad.view(6, 16, 16).abs().amax((1, 2))
    # Behind a closed gate nothing can be learnt yet, but the gates (third and sixth) themselves can.
    assert (gradient[[2, 5]] > 0).all() and not gradient[[0, 1, 3, 4]].any()


def test_long_skips_carry_early_tokens_to_late_blocks() -> None:
    """With middle blocks that output a constant, only a long skip can tell two inputs apart at the end."""

    class Constant(nn.Module):
        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            return torch.ones_like(x)

    def differs(long_skips: bool) -> bool:
        network = randomised(TransformerDenoiser(TransformerSettings(16, 3, 2, 2, long_skips), Conditioning()))
        network.blocks[1] = Constant()
        t = torch.rand(1)
        one, other = (network(torch.randn(1, 1, 8, 8), t, {}) for _ in range(2))
        return not torch.allclose(one, other, atol=1e-5)

    assert differs(True) and not differs(False)


def test_attention_follows_a_permutation_and_positions_break_it() -> None:
    block, order = randomised(AdaptiveBlock(16, 2)), torch.randperm(9)
    x, condition = torch.randn(2, 9, 16), torch.randn(2, 16)
    assert torch.allclose(block(x[:, order], condition), block(x, condition)[:, order], atol=1e-4)
    network = randomised(TokenTransformer(SMALL, codes=5))
    same = torch.full((1, 4, 4), 5)  # sixteen hidden tokens differ by their place alone
    logits = network(same, {}).flatten(1, 2)[0]
    assert torch.cdist(logits, logits).add(torch.eye(16)).min() > 1e-3


def test_positions_are_distinct_bounded_and_know_rows_from_columns() -> None:
    grid = positions(16, 4, 8, torch.zeros(1)).view(4, 8, 16)
    flat = grid.flatten(0, 1)
    assert torch.cdist(flat, flat).add(torch.eye(32)).min() > 0.1 and flat.abs().max() <= 1
    # One half of the channels tells the column alone, the other the row alone.
    assert torch.equal(grid[0, :, :8], grid[3, :, :8]) and torch.equal(grid[:, 0, 8:], grid[:, 7, 8:])


@pytest.mark.parametrize("patch", [1, 2])
def test_every_token_sees_every_other(patch: int) -> None:
    network = randomised(TokenTransformer(replace(SMALL, patch=patch), codes=5))
    tokens = torch.randint(5, (1, 4, 4))
    changed = tokens.clone()
    changed[0, 3, 3] = (changed[0, 3, 3] + 1) % 5
    assert ((network(tokens, {}) - network(changed, {})).abs().amax(-1) > 1e-6).all()  # not causal
    assert network(tokens, {}).shape == (1, 4, 4, 5)


def test_time_and_mask_reach_the_output_and_neighbours_do_not() -> None:
    conditioning = LabelMap()
    network = randomised(TransformerDenoiser(SMALL, conditioning))
    x, t, mask = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 0.5, 0.9]), torch.randint(4, (3, 8, 8))
    base = network(x, t, {"mask": mask})
    assert not torch.allclose(network(x, t + 0.05, {"mask": mask}), base, atol=1e-3)
    assert not torch.allclose(network(x, t, {"mask": mask.flip(1)}), base, atol=1e-3)
    assert torch.allclose(network(x[1:2], t[1:2], {"mask": mask[1:2]}), base[1:2], atol=1e-4)


def test_any_side_that_the_patch_divides_is_taken() -> None:
    network = randomised(TransformerDenoiser(SMALL, Conditioning()))
    for side in (4, 8, 16):
        assert network(torch.randn(1, 1, side, 2 * side), torch.rand(1), {}).shape == (1, 1, side, 2 * side)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ParameterError, match="width"):
        TransformerSettings(width=18, heads=4)
    with pytest.raises(ParameterError, match="patch²"):
        TokenTransformer(TransformerSettings(width=20, heads=2, patch=3), codes=5)
    with pytest.raises(ParameterError, match="depth"):
        TransformerSettings(depth=0)
