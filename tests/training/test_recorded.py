"""What a GPU records once and replays: on a CPU with a stand-in for its graphs, and on a GPU where there is one."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import open_study
from cmri_lib.generators.flow import FlowMatching, FlowSettings
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.systems.register import system
from cmri_lib.training import train
from cmri_lib.training.checkpoint import read_tensors
from cmri_lib.training.recorded import WARM_UP, Recorded

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Graph:
    """Stands in for a CUDA graph: repeats on the recorded tensors what was done while it was recorded."""

    work = None

    def replay(self) -> None:
        self.work()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """`torch.cuda` without a GPU: streams do nothing, and every graph made is listed."""
    made: list[Graph] = []
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr("torch.cuda.Stream", lambda: stream)
    monkeypatch.setattr("torch.cuda.current_stream", lambda: stream)
    monkeypatch.setattr("torch.cuda.stream", lambda stream: nullcontext())
    monkeypatch.setattr("torch.cuda.CUDAGraph", lambda: made.append(Graph()) or made[-1])

    @contextmanager
    def graph(recorded: Graph):
        yield

    monkeypatch.setattr("torch.cuda.graph", graph)
    return made


class Product:
    """A loss, w · x · factor, whose work a stand-in for a graph repeats on the tensors that it was recorded with."""

    def __init__(self, weight: nn.Parameter, factor: float, graphs: list[Graph]):
        self.weight, self.factor, self.graphs, self.asked = weight, factor, graphs, 0
        self.recorded = Recorded(self, [weight])

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        self.asked += 1
        self.weight.grad = None
        loss = self.factor * (self.weight * batch["x"]).sum()
        loss.backward()
        loss, gradient, x = loss.detach(), self.weight.grad, batch["x"]
        if self.asked > WARM_UP:  # a recording computes nothing, a replay all of it
            def work() -> None:
                gradient.copy_(self.factor * x)
                loss.copy_(self.factor * (self.weight.detach() * x).sum())

            self.graphs[-1].work = work
            gradient.zero_(), loss.zero_()
        return loss


def test_a_replay_is_given_the_new_batch_and_gives_its_loss_and_gradient(graphs: list[Graph]) -> None:
    product = Product(nn.Parameter(torch.tensor([2.0, 3.0])), 1.0, graphs)
    for k in range(WARM_UP + 3):
        x = torch.tensor([float(k), 1.0])
        assert float(product.recorded({"x": x})) == 2 * k + 3 and product.weight.grad.tolist() == [k, 1]
        assert x.tolist() == [k, 1]  # no caller's batch is written to
    assert product.asked == WARM_UP + 1 and len(graphs) == 1


def test_two_recordings_of_the_same_parameters_do_not_mix_their_gradients(graphs: list[Graph]) -> None:
    weight = nn.Parameter(torch.tensor([2.0, 3.0]))
    once, twice = Product(weight, 1.0, graphs), Product(weight, 2.0, graphs)
    for k in range(WARM_UP + 3):
        for product in (once, twice, once):
            product.recorded({"x": torch.tensor([float(k), 1.0])})
            assert weight.grad.tolist() == [product.factor * k, product.factor]


def test_a_loss_that_asks_the_cpu_is_not_recorded() -> None:
    def flow(**objective: object) -> FlowMatching:
        return FlowMatching(nn.Identity(), Conditioning(), FlowSettings(**objective))

    assert flow(coupling="independent").recordable and flow(coupling="ot", pool=16).recordable
    assert not flow(coupling="ot").recordable  # its transport plan within a batch is made on a CPU
    params = open_study("smoke", "phantom").params
    expected = {"U1 VAE": True, "U2 DCGAN": True, "U4 progressive GAN": False, "U6 DDPM": True, "U7 LDM-KL": True,
                "U9 MaskGIT": False}
    assert {name: system(name).build(params, Vocabulary({}), 0).recordable for name in expected} == expected


def test_what_a_prior_does_in_some_steps_alone_is_a_branch_of_its_own() -> None:
    generator = system("C18 RDP-CGAN").build(open_study("smoke", "phantom").params, Vocabulary({}), 0)
    branches = []
    for step in range(5):
        generator.update_schedule(step, 100)
        branches.append(generator.branch)
    assert generator.recordable and branches == [True, False, False, False, True]  # R1 is computed at every fourth step


@GPU
@pytest.mark.parametrize("name", ["U1 VAE", "U2 DCGAN", "U6 DDPM", "U7 LDM-KL", "U8 DiT", "U10 FM", "C18 RDP-CGAN"])
def test_on_a_gpu_a_recorded_training_is_the_other_one(name: str, tmp_path: Path) -> None:
    params = open_study("smoke", "phantom").params
    one = system(name)
    settings = replace(one.training(params), steps=3 * (WARM_UP + 2), log_every=1, validate_every=0, snapshots=0)
    images = torch.rand(40, 1, params.preprocess.size, params.preprocess.size) * 2 - 1

    def trained(where: str) -> tuple[dict[str, Tensor], list[float]]:
        model = one.build(params, Vocabulary({}), 0)
        log = train(model, model.prepare({"image": images}), settings, tmp_path / where)
        return read_tensors(tmp_path / where / "weights.safetensors"), log.filter(like="loss_").to_numpy().ravel().tolist()

    with patch.object(type(one.build(params, Vocabulary({}), 0)), "recordable", False):
        expected, losses = trained("as ever")
    found, again = trained("recorded")
    torch.testing.assert_close(torch.tensor(again), torch.tensor(losses), rtol=1e-3, atol=1e-4, equal_nan=True)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=2e-3)
