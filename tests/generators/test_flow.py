"""Flow matching against Gaussian targets, whose velocity field and paths are known in closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Small, discs
from torch import Tensor, nn

from cmri_lib.errors import ParameterError, SplitError
from cmri_lib.generators.base import as_own_patients, batch_of, draw, training_batch
from cmri_lib.generators.flow import COUPLED, EVALUATIONS, FlowMatching, FlowSettings, transport_plan
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.conditioning.label_map import LabelMap
from cmri_lib.networks.unet import Denoiser, UNetSettings
from cmri_lib.training import TrainSettings, train

MEAN, SIGMA = 1.5, 0.4


def gaussian_velocity(x: Tensor, t: Tensor) -> Tensor:
    """E[x1 − x0 | x_t = x] for x0 ~ N(0, 1), x1 ~ N(MEAN, SIGMA²) independent: a linear regression in x."""
    variance = (1 - t) ** 2 + t**2 * SIGMA**2
    covariance = t * SIGMA**2 - (1 - t)
    return MEAN + covariance / variance * (x - t * MEAN)


class Exact(nn.Module):
    """The network that has learnt the Gaussian perfectly."""

    def forward(self, x: Tensor, t: Tensor, batch: dict) -> Tensor:
        return gaussian_velocity(x, t.view(-1, *[1] * (x.dim() - 1)))


class Tangent(nn.Module):
    """dx/dt = 1 + x², so x(1) = tan(1 + arctan x(0))."""

    def forward(self, x: Tensor, t: Tensor, batch: dict) -> Tensor:
        return 1 + x.square()


def exact_end(x0: Tensor) -> Tensor:
    """Where the flow carries x0: the monotone map between the two Gaussians."""
    return MEAN + SIGMA * x0


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_solvers_converge_at_their_order(solver: str, order: int) -> None:
    x0 = torch.linspace(-2, 0.2, 41, dtype=torch.float64)[:, None]

    def rate(network: nn.Module, end: Tensor) -> float:
        flow = FlowMatching(network, Conditioning())
        errors = [(flow.integrate(x0, {}, solver, steps) - end).abs().max().item() for steps in (40, 80)]
        return np.log2(errors[0] / errors[1])

    assert rate(Tangent(), torch.tan(1 + torch.arctan(x0))) == pytest.approx(order, abs=0.25)
    # On straight Gaussian paths the midpoint rule happens to gain an order.
    assert rate(Exact(), exact_end(x0)) > order - 0.25


@pytest.mark.parametrize(("times", "batch"), [("uniform", 256), ("logit-normal", 512)])
def test_trained_velocity_is_the_analytic_one(times: str, batch: int, tmp_path: Path) -> None:
    flow = FlowMatching(Small(), Conditioning(), FlowSettings(coupling="independent", times=times))
    data = {"image": MEAN + SIGMA * torch.randn(4000, 1)}
    train(flow, data, TrainSettings(steps=2000, batch=batch, learning_rate=1e-2), tmp_path)
    t = torch.linspace(0.2, 0.8, 9).repeat_interleave(11)  # logit-normal times rarely visit the ends
    x = t * MEAN + torch.linspace(-1.2, 1.2, 11).repeat(9) * ((1 - t) ** 2 + (t * SIGMA) ** 2).sqrt()
    learnt, true = flow.network(x[:, None], t, {})[:, 0], gaussian_velocity(x, t)
    assert (learnt - true).square().mean().sqrt() < 0.08  # of velocities spread over about ±2.5
    end = flow.integrate(torch.randn(4000, 1), {}, "heun", 20)
    assert end.mean().item() == pytest.approx(MEAN, abs=0.05) and end.std().item() == pytest.approx(SIGMA, abs=0.04)


def test_coupling_is_the_optimal_assignment_and_straightens_paths() -> None:
    x0, x1 = torch.randn(64, 1), 5 + 2 * torch.randn(64, 1)
    order = transport_plan(x0, x1)
    # In one dimension the optimal plan sorts: equal ranks are paired.
    assert torch.equal(x0[order, 0].argsort().argsort(), x1[:, 0].argsort().argsort())
    images, noise = torch.rand(8, 1, 6, 6), torch.randn(8, 1, 6, 6)
    cost = lambda x: (x - images).square().sum()  # noqa: E731
    assert cost(noise[transport_plan(noise, images)]) <= cost(noise)


class Still(nn.Module):
    """No velocity anywhere: its loss is the mean square of what the paths cover."""

    def forward(self, x: Tensor, t: Tensor, batch: dict) -> Tensor:
        return torch.zeros_like(x)


def test_a_pool_couples_closer_than_its_batches() -> None:
    torch.manual_seed(1)
    images, drawn = torch.randn(64, 1, 2, 2), torch.randn(64, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    flow = FlowMatching(Still(), Conditioning(), FlowSettings(coupling="ot", pool=64))
    coupled = flow.couple({"image": images}, torch.Generator().manual_seed(0))
    noise = coupled[COUPLED]
    assert torch.equal(noise.flatten().sort().values, drawn.flatten().sort().values), "noise was made up or lost"
    batched = torch.cat([x0[transport_plan(x0, x1)] for x0, x1 in zip(drawn.split(8), images.split(8))])
    pool, batch, independent = ((x0 - images).square().mean() for x0 in (noise, batched, drawn))
    assert pool < batch < independent
    assert flow.loss({"image": images, **coupled}, "model") == pytest.approx(float(pool), rel=1e-5)
    assert FlowMatching(Still(), Conditioning(), FlowSettings(coupling="independent", pool=64)).pool == 0


def test_loss_of_the_exact_field_is_the_conditional_variance() -> None:
    flow = FlowMatching(Exact(), Conditioning(), FlowSettings(coupling="independent"))
    torch.manual_seed(3)
    loss = flow.loss({"image": MEAN + SIGMA * torch.randn(400_000, 1)}, "model").item()
    t = np.linspace(0, 1, 20_001)
    variance, covariance = (1 - t) ** 2 + (t * SIGMA) ** 2, t * SIGMA**2 - (1 - t)
    assert loss == pytest.approx(np.mean(1 + SIGMA**2 - covariance**2 / variance), rel=0.01)


def masked_flow() -> FlowMatching:
    torch.manual_seed(0)
    conditioning = LabelMap()
    flow = FlowMatching(Denoiser(UNetSettings((8, 16), head_channels=8), conditioning), conditioning,
                        FlowSettings(coupling="independent", steps=4))
    nn.init.normal_(flow.network.unet.out[-1].conv.weight, std=0.1)  # MONAI starts the last layer at zero
    return flow


def test_each_sample_depends_on_its_own_noise_and_mask_only() -> None:
    flow, slices = masked_flow(), discs(4, 3)
    base = draw(flow, slices, "U10", seed=5, batch=12)
    assert np.allclose(draw(flow, slices, "U10", seed=5, batch=5).images, base.images, atol=1e-5)
    assert not np.allclose(draw(flow, slices, "U10", seed=6).images, base.images, atol=1e-2)
    swapped = slices.take([1, 0, *range(2, len(slices))])
    changed = np.abs(draw(flow, swapped, "U10", seed=5, batch=12).images - base.images).max((1, 2, 3))
    assert (changed[:2] > 1e-3).all() and (changed[2:] < 1e-5).all()


def test_drawn_slices_say_what_they_are() -> None:
    slices = discs(2, 3, split="test").with_columns(vendor="A", centre="7", age=61.0, lvef=40.0)
    followed = draw(masked_flow(), slices, "U10 + mask")
    assert (followed.masks == slices.masks).all() and (followed.table["source"] == "U10 + mask").all()
    assert list(followed.patients) == list(slices.patients)
    free = draw(FlowMatching(Denoiser(UNetSettings((8, 16), head_channels=8), Conditioning()), Conditioning()), slices, "U10")
    assert not free.masks.any() and len(set(free.patients)) == len(free)
    assert (free.table[["vendor", "centre"]] == "unknown").all(axis=None), "whose scanner it was is nobody's business"
    assert free.table[["age", "lvef"]].isna().all(axis=None) and (free.table["spacing"] == slices.table["spacing"]).all()
    assert (followed.table["age"] == 61).all(), "who follows a patient's mask shows that patient's heart"
    asked = as_own_patients(slices.table, "C6", ("age", "vendor"), slices=3)
    assert (asked["age"] == 61).all() and (asked["vendor"] == "A").all() and (asked["centre"] == "unknown").all()
    assert asked["lvef"].isna().all() and list(asked.groupby("patient").size()) == [3, 3]
    assert followed.images.min() >= -1 and followed.images.max() <= 1


def test_nfe_counts_network_calls() -> None:
    flow = masked_flow()
    calls = []
    flow.network.register_forward_hook(lambda *a: calls.append(1))
    batch = {k: v[:2] for k, v in batch_of(discs(1, 2), LabelMap()).items()}
    for solver, per_step in EVALUATIONS.items():
        calls.clear()
        flow.integrate(torch.randn(2, 1, 32, 32), batch, solver, 3)
        assert len(calls) == 3 * per_step


def test_training_refuses_patients_kept_for_measuring() -> None:
    with pytest.raises(SplitError, match="test"):
        training_batch(discs(split="test"), Conditioning())
    assert set(training_batch(discs(), Conditioning())) == {"image"}
    assert set(training_batch(discs(), LabelMap())) == {"image", "mask"}


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ParameterError, match="solver"):
        FlowSettings(solver="rk45")
    batch = {k: v[:2] for k, v in batch_of(discs(1, 2), LabelMap()).items()}
    for wrong in ({"solver": "midpiont"}, {"steps": 0}, {"steps": -3}):
        with pytest.raises(ParameterError, match="solver"):
            masked_flow().sample(torch.randn(2, 1, 32, 32), batch, **wrong)
    with pytest.raises(ParameterError, match="channels"):
        Denoiser(UNetSettings((12, 16)), Conditioning())
