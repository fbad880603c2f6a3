"""Muon: every direction of a matrix moves alike, everything else as AdamW moves it."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from cmri_lib.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(16, 144), (64, 1152), (96, 24), (1, 9)])
def test_muon_moves_all_directions_alike(shape: tuple[int, int]) -> None:
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(gradient, full_matrices=False)
    found = orthogonal(gradient)
    torch.testing.assert_close(orthogonal(torch.stack([gradient, gradient.flip(0)])), torch.stack([found, found.flip(0)]),
                               rtol=1e-4, atol=1e-5)
    values = torch.linalg.svdvals(found)
    assert 0.6 < values.min() and values.max() < 1.25
    off = (u.T @ found @ vh.T).fill_diagonal_(0)  # the same singular vectors as the gradient's
    assert off.abs().max() < 1e-4


def test_muon_moves_biases_and_gains_as_torch_does() -> None:
    ours = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((7,), (3,), ())]
    theirs = deepcopy(ours)
    options = {"lr": 0.03, "betas": (0.8, 0.95), "weight_decay": 0.1}
    optimisers = Muon(ours, **options), torch.optim.AdamW(theirs, eps=1e-8, **options)
    for _ in range(5):
        for a, b in zip(ours, theirs):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(16, 3, 3, 3), (24, 10)])
def test_muon_moves_weights_by_the_formula(shape: tuple[int, ...]) -> None:
    weight = nn.Parameter(torch.randn(shape, dtype=torch.float64))
    optimiser = Muon([weight], lr=0.03, weight_decay=0.1)
    momentum, wanted = torch.zeros_like(weight), weight.detach().clone()
    for _ in range(2):  # in the first step momentum and gradient have one direction
        gradient = weight.grad = torch.randn_like(weight)
        optimiser.step()
        momentum = 0.95 * momentum + 0.05 * gradient
        u, values, vh = torch.linalg.svd((0.95 * momentum + 0.05 * gradient).flatten(1), full_matrices=False)
        values = values / values.norm()
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        step = 0.2 * math.sqrt(max(len(weight), weight[0].numel())) * (u * values) @ vh
        wanted = (1 - 0.03 * 0.1) * wanted - 0.03 * step.view(shape)
    torch.testing.assert_close(weight.detach(), wanted, rtol=1e-6, atol=1e-9)
