"""The benchmark's ruler is right and is the same for both sides."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import discs
from torch import Tensor, nn

from cmri_lib.generators.base import training_batch
from cmri_lib.generators.flow import FlowMatching
from cmri_lib.networks.conditioning.base import Batch
from cmri_lib.networks.conditioning.label_map import LabelMap
from cmri_lib.networks.unet import Denoiser, UNetSettings


@pytest.fixture(scope="module")
def benchmark():
    file = Path(__file__).parents[1] / "benchmarks" / "time_to_quality.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Still(nn.Module):
    """Velocity 0 everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))  # tells the flow its device

    def forward(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        return 0 * x


class Posterior(Still):
    """E[x1 − x0 | x_t] for x1, x0 ~ N(0, 1): (2t − 1) / (t² + (1 − t)²) · x_t."""

    def forward(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        s = t.view(-1, 1, 1, 1)
        return (2 * s - 1) / (s**2 + (1 - s) ** 2) * x


def test_velocity_error_is_the_closed_form_one(benchmark) -> None:
    unseen = {"image": torch.randn(90, 1, 32, 32), "mask": torch.zeros(90, 32, 32)}
    power = unseen["image"].square().mean().item()
    still = benchmark.velocity_error(FlowMatching(Still(), LabelMap()), unseen)
    assert still == pytest.approx(1 + power, rel=0.01)
    # Var(x1 − x0 | x_t) = 1 / (t² + (1 − t)²), whose mean over t is π / 2
    best = benchmark.velocity_error(FlowMatching(Posterior(), LabelMap()), unseen)
    assert best == pytest.approx(torch.pi / 2, rel=0.01)
    assert benchmark.velocity_error(FlowMatching(Posterior(), LabelMap()), unseen, size=7) == pytest.approx(best, rel=1e-5)


def test_both_sides_may_be_the_same_network(benchmark) -> None:
    stock, ours = benchmark.StockNetwork((8, 16)), Denoiser(UNetSettings((8, 16), head_channels=8), LabelMap())
    nn.init.normal_(stock.unet.out[-1].conv.weight)  # MONAI starts the last layer at zero
    ours.load_state_dict(stock.state_dict())
    batch = training_batch(discs(2, 2), LabelMap())
    x, t = torch.randn_like(batch["image"]), torch.rand(len(batch["image"]))
    batch = {k: torch.as_tensor(v) for k, v in batch.items()}
    assert torch.equal(stock(x, t, batch), ours(x, t, batch)) and stock(x, t, batch).std() > 0.01


def test_stock_loop_learns_until_its_time_is_over(benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    options = argparse.Namespace(channels=[8, 16], rate=1e-2, device="cpu")
    data = training_batch(discs(16, 3), LabelMap())
    clock = itertools.count(100.0, 0.25)  # a quarter of a second passes from one look at it to the next
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=clock.__next__))
    job = benchmark.Job("A", "fp32", 1.5, 0, Path("unused"), options)
    flow, steps, seconds = benchmark.train_stock(data, job)
    assert steps == 6 and seconds == 1.75 and not flow.training
    power = data["image"].square().mean().item()
    assert benchmark.velocity_error(flow, data) < 1 + power
