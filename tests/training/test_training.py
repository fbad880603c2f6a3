"""The loop: the same training always ends in the same weights, whatever interrupts it."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import train_small
from torch import nn

from cmri_lib.errors import CheckpointError, DataError, ParameterError
from cmri_lib.training import AdversarialTraining, Augment, TrainSettings, Trainable, train
from cmri_lib.training.batches import mixed_seed
from cmri_lib.training.checkpoint import halved, load_weights, read_note, read_tensors
from cmri_lib.training.fingerprint import _syntax, training_fingerprint
from cmri_lib.training.loop import Training, device_name
from cmri_lib.training.muon import Muon, orthogonal


class Line(Trainable):
    """y = a x + b, fitted by least squares."""

    def __init__(self, noise: float = 0.0):
        super().__init__()
        self.linear, self.noise = nn.Linear(1, 1), noise

    def loss(self, batch: dict, player: str) -> torch.Tensor:
        jitter = self.noise * torch.randn_like(batch["x"])
        return (self.linear(batch["x"]) - batch["y"] + jitter).square().mean()


def line_data(n: int = 64) -> dict[str, torch.Tensor]:
    x = torch.linspace(-1, 1, n)[:, None]
    return {"x": x, "y": 3 * x - 2}


def test_fits_the_least_squares_line(tmp_path: Path) -> None:
    model = Line()
    log = train(model, line_data(), TrainSettings(steps=800, batch=16, learning_rate=0.1, ema=0.9), tmp_path)
    assert model.linear.weight.item() == pytest.approx(3, abs=0.02)
    assert model.linear.bias.item() == pytest.approx(-2, abs=0.02)
    assert log["loss_model"].iloc[-1] < 1e-3 * log["loss_model"].iloc[0]
    assert not model.training


class Pair(Trainable):
    """Two numbers, each with a group of its own and a slope of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.critic, self.generator = (nn.Parameter(torch.zeros(())) for _ in range(2))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"critic": [self.critic], "generator": [self.generator]}

    def loss(self, batch: dict, group: str) -> torch.Tensor:
        return getattr(self, group) * batch["x"].mean()


def test_a_critic_has_a_learning_rate_of_its_own(tmp_path: Path) -> None:
    model = Pair()  # Adam's first step is its learning rate, whatever the slope
    train(model, {"x": torch.ones(8)}, AdversarialTraining(steps=1, learning_rate=1e-3, critic_rate=4.0), tmp_path)
    assert model.generator.item() < 0
    assert model.critic.item() == pytest.approx(4 * model.generator.item(), rel=1e-3)


class Slope(Trainable):
    """A number whose slope is 1, what it was at each step, and a count of the steps, which is no floating number."""

    def __init__(self) -> None:
        super().__init__()
        self.number, self.path = nn.Parameter(torch.zeros(())), []
        self.register_buffer("count", torch.tensor(0))

    def loss(self, batch: dict, group: str) -> torch.Tensor:
        self.path.append(self.number.item())
        self.count += 1
        return self.number * batch["x"].mean()


def test_rates_averages_snapshots_and_log_are_those_of_the_formulas(tmp_path: Path) -> None:
    settings = TrainSettings(steps=40, learning_rate=0.01, warmup=4, final_rate=0.1, ema=0.8, grad_clip=0.0, snapshots=2,
                             log_every=10)
    number, average, rates, numbers, averages = 0.0, 0.0, [], [], []
    for step in range(40):
        cosine = 0.1 + 0.9 * (1 + math.cos(math.pi * step / 40)) / 2
        rates.append(0.01 * min(1.0, (step + 1) / 4) * cosine)
        decay = min(0.8, (1 + step) / (10 + step))
        numbers.append(number)
        number -= rates[-1]  # Adam's step where the slope is always the same
        average = decay * average + (1 - decay) * number
        averages.append(average)
    model = Slope()
    log = train(model, {"x": torch.ones(8)}, settings, tmp_path)
    assert model.path == pytest.approx(numbers, rel=1e-4)
    assert log["learning_rate"].tolist() == pytest.approx([rates[step - 1] for step in (10, 20, 30, 40)])
    for step, file in ((10, "snapshot-000010"), (20, "snapshot-000020"), (40, "weights")):
        kept = read_tensors(tmp_path / f"{file}.safetensors")
        assert kept["number"].item() == pytest.approx(averages[step - 1], rel=1e-3), "numbers are kept in 16 bits"
        assert kept["count"] == step
    assert sorted(file.name for file in tmp_path.glob("snapshot-*")) == ["snapshot-000010.safetensors",
                                                                         "snapshot-000020.safetensors"]


def test_rates_decays_and_snapshots_by_hand() -> None:
    settings = TrainSettings(steps=1000, learning_rate=0.02, warmup=50, final_rate=0.1, ema=0.99, snapshots=3)
    assert settings.rate(0) == pytest.approx(0.02 / 50)
    assert settings.rate(500) == pytest.approx(0.02 * 0.55) and settings.rate(1000) == pytest.approx(0.02 * 0.1)
    assert settings.rate(250) == pytest.approx(0.02 * (0.1 + 0.45 * (1 + math.sqrt(0.5))))
    assert TrainSettings(steps=20, learning_rate=0.02, warmup=100).rate(0) == pytest.approx(0.01)  # 2 of 20 steps at most
    assert [settings.decay(step) for step in (0, 8, 890, 891, 5000)] == pytest.approx([0.1, 0.5, 0.99, 0.99, 0.99])
    assert settings.decay(800) == pytest.approx(801 / 810)
    assert settings.snapshot_steps() == [125, 250, 500]
    assert TrainSettings(steps=3, snapshots=5).snapshot_steps() == [1] and TrainSettings(steps=3).snapshot_steps() == []


@pytest.mark.parametrize(("clip", "seen"), [(1.0, (0.6, 0.8)), (0.0, (60, 80)), (200.0, (60, 80))])
def test_a_gradient_is_clipped_to_its_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: float, seen: tuple) -> None:
    class Steep(Line):
        def loss(self, batch: dict, player: str) -> torch.Tensor:
            return 60 * self.linear.weight.sum() + 80 * self.linear.bias.sum()  # a gradient of norm 100

    # Adam's step does not show how large a gradient is; this one is the gradient times the rate.
    monkeypatch.setattr("torch.optim.AdamW", lambda parameters, lr, **_: torch.optim.SGD(parameters, lr))
    model = Steep()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    log = train(model, line_data(), TrainSettings(steps=1, learning_rate=0.5, grad_clip=clip), tmp_path)
    moved = [model.linear.weight.item(), model.linear.bias.item()]
    assert moved == pytest.approx([-0.9 * 0.5 * slope for slope in seen], rel=1e-3)  # the first average is a tenth of the old
    assert log["grad_norm"].tolist() == pytest.approx([100])


def test_a_finished_training_returns_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    first = Line()
    before = {k: v.clone() for k, v in first.state_dict().items()}
    log = train(first, line_data(), TrainSettings(steps=60), tmp_path)
    second = Line()
    second.load_state_dict(before)
    monkeypatch.setattr("cmri_lib.training.loop.Training.go", lambda self: pytest.fail("trained again"))
    again = train(second, line_data(), TrainSettings(steps=60), tmp_path)
    pd.testing.assert_frame_equal(log, again)
    assert torch.equal(first.linear.weight, second.linear.weight)


@pytest.mark.parametrize("change", ["settings", "data", "model", "augment"])
def test_anything_that_matters_trains_again(change: str) -> None:
    def identity(settings: TrainSettings, n: int, noise: float, augment: object) -> dict:
        torch.manual_seed(1)
        return training_fingerprint(Line(noise), line_data(n), settings, augment)

    base = identity(TrainSettings(steps=60), 64, 0.0, None)
    assert base == identity(TrainSettings(steps=60), 64, 0.0, None)
    other = {"settings": (TrainSettings(steps=61), 64, 0.0, None), "data": (TrainSettings(steps=60), 65, 0.0, None),
             "model": (TrainSettings(steps=60), 64, 0.1, None), "augment": (TrainSettings(steps=60), 64, 0.0, Augment())}
    assert base != identity(*other[change])


def change_code(monkeypatch: pytest.MonkeyPatch, same: bool) -> None:
    """The code has another digest, and does the `same` or something else."""
    monkeypatch.setattr("cmri_lib.training.fingerprint.code_digest", lambda *objects: "other code")
    if not same:
        monkeypatch.setattr(Line, "loss",
                            lambda self, batch, group: 1.01 * (self.linear(batch["x"]) - batch["y"]).square().mean())


@pytest.mark.parametrize("same", [True, False])
def test_changed_code_keeps_weights_only_if_its_first_steps_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                   same: bool) -> None:
    settings = TrainSettings(steps=60, batch=4)
    torch.manual_seed(1)
    first = Line(0.1)
    second = deepcopy(first)
    train(first, line_data(), settings, tmp_path)
    change_code(monkeypatch, same)
    steps = []
    monkeypatch.setattr("cmri_lib.training.loop.Training.go", lambda self: steps.append(self.settings.steps))
    train(second, line_data(), settings, tmp_path)
    assert steps == ([] if same else [60])
    assert torch.equal(first.linear.weight, second.linear.weight) == same
    assert (read_note(tmp_path / "weights.safetensors")["identity"]["code"] == "other code") == same


@pytest.mark.parametrize("same", [True, False])
def test_changed_code_goes_on_from_a_checkpoint_only_if_its_first_steps_return(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                               same: bool) -> None:
    settings = TrainSettings(steps=40, batch=4)
    torch.manual_seed(1)
    uncut = Line(0.1)
    cut, again = deepcopy(uncut), deepcopy(uncut)
    train(uncut, line_data(), settings, tmp_path / "uncut")
    step = Training._step

    def until_25(self: Training) -> tuple:
        if self.step == 25:
            raise InterruptedError
        return step(self)

    with monkeypatch.context() as interrupted, pytest.raises(InterruptedError):
        interrupted.setattr(Training, "_step", until_25)
        train(cut, line_data(), settings, tmp_path / "cut", checkpoint_seconds=0)
    change_code(monkeypatch, same)
    begun = []
    resume = Training._resume
    monkeypatch.setattr(Training, "_resume", lambda self: (resume(self), begun.append(self.step)))
    train(again, line_data(), settings, tmp_path / "cut")
    assert begun == ([25] if same else [0])
    assert not same or torch.equal(again.linear.weight, uncut.linear.weight)


def test_a_device_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"GPU {device.index}")
    assert device_name(torch.device("cpu")) == "cpu" and device_name(torch.device("cuda", 1)) == "GPU 1"


def test_a_training_names_every_device_that_had_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, step = TrainSettings(steps=40, batch=4), Training._step

    def until_25(self: Training) -> tuple:
        if self.step == 25:
            raise InterruptedError
        return step(self)

    torch.manual_seed(1)
    cut = Line(0.1)
    again = deepcopy(cut)
    with monkeypatch.context() as interrupted, pytest.raises(InterruptedError):
        interrupted.setattr(Training, "_step", until_25)
        interrupted.setattr("cmri_lib.training.loop.device_name", lambda device: "a GPU")
        train(cut, line_data(), settings, tmp_path, checkpoint_seconds=0)
    train(again, line_data(), settings, tmp_path)
    assert read_note(tmp_path / "weights.safetensors")["device"] == "a GPU + cpu"


class Alternating(Pair):
    """The generator moves at every other step."""

    def update_schedule(self, step: int, steps: int) -> tuple[str, ...]:
        return ("critic", "generator") if step % 2 else ("critic",)


def test_changed_code_is_replayed_where_groups_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, settings = {"x": torch.ones(8)}, TrainSettings(steps=20)
    train(Alternating(), data, settings, tmp_path)
    monkeypatch.setattr("cmri_lib.training.fingerprint.code_digest", lambda *objects: "other code")
    monkeypatch.setattr("cmri_lib.training.loop.Training.go", lambda self: pytest.fail("trained again"))
    train(Alternating(), data, settings, tmp_path)


def test_prepared_data_may_differ_by_rounding_and_their_source_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, source = TrainSettings(steps=20, batch=4), line_data(16)
    torch.manual_seed(1)
    first = Line()
    second = deepcopy(first)
    train(first, {name: values * (1 + 1e-7) for name, values in source.items()}, settings, tmp_path, source=source)
    steps = []
    monkeypatch.setattr("cmri_lib.training.loop.Training.go", lambda self: steps.append(1))
    train(deepcopy(second), source, settings, tmp_path, source=source)
    assert not steps
    train(second, source, settings, tmp_path, source=line_data(17))
    assert steps


def test_a_launch_that_would_change_the_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = SimpleNamespace(mixed_precision="no", num_processes=3, process_index=0, device=torch.device("cpu"),
                                  prepare=None)
    monkeypatch.setattr("cmri_lib.training.shared.Accelerator", lambda **_: accelerator)
    with pytest.raises(ParameterError, match="(?s)4 images for 3 processes.*multiple"):
        train(Line(), line_data(), TrainSettings(steps=1, batch=4), tmp_path)
    accelerator.mixed_precision = "bf16"
    with pytest.raises(ParameterError, match="(?s)launch sets bf16.*precision.*params.yaml"):
        train(Line(), line_data(), TrainSettings(steps=1, batch=6), tmp_path)


def test_the_first_steps_of_a_shared_training_are_noted_as_one_process_takes_them(tmp_path: Path, monkeypatch) -> None:
    torch.manual_seed(1)
    shared = Line(0.1)
    alone, again = deepcopy(shared), deepcopy(shared)
    settings = TrainSettings(steps=20, batch=4)
    with monkeypatch.context() as two:
        first_of_two = SimpleNamespace(
            mixed_precision="no", num_processes=2, process_index=0, is_main_process=True, device=torch.device("cpu"),
            prepare=lambda part: part, backward=lambda loss: loss.backward(), clip_grad_norm_=nn.utils.clip_grad_norm_,
            wait_for_everyone=lambda: None, reduce=lambda losses, how: losses)
        two.setattr("cmri_lib.training.shared.Accelerator", lambda **_: first_of_two)
        train(shared, line_data(), settings, tmp_path / "shared")
    train(alone, line_data(), settings, tmp_path / "alone")
    steps = [read_note(tmp_path / name / "weights.safetensors")["first_steps"] for name in ("shared", "alone")]
    assert steps[0] == steps[1] and not torch.equal(shared.linear.weight, alone.linear.weight)
    change_code(monkeypatch, same=True)
    monkeypatch.setattr("cmri_lib.training.loop.Training.go", lambda self: pytest.fail("trained again"))
    train(again, line_data(), settings, tmp_path / "shared")
    assert torch.equal(again.linear.weight, shared.linear.weight)


@pytest.mark.parametrize("changed, kept", [(("torch",), True), (("torch", "model"), True), (("model",), False)])
def test_another_torch_may_describe_the_same_network_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                               changed: tuple[str, ...], kept: bool) -> None:
    settings = TrainSettings(steps=20, batch=4)
    torch.manual_seed(1)
    first = Line(0.1)
    second = deepcopy(first)
    train(first, line_data(), settings, tmp_path)
    monkeypatch.setattr("cmri_lib.training.loop.training_fingerprint",
                        lambda *of: training_fingerprint(*of) | {part: "other" for part in changed})
    steps = []
    monkeypatch.setattr("cmri_lib.training.loop.Training.go", lambda self: steps.append(1))
    train(second, line_data(), settings, tmp_path)
    assert steps == ([] if kept else [1])


def test_what_is_sampled_is_what_is_kept_in_half_the_space(tmp_path: Path) -> None:
    model = Line()
    train(model, line_data(), TrainSettings(steps=60, batch=4), tmp_path)
    kept = read_tensors(tmp_path / "weights.safetensors")
    assert all(value.dtype == torch.float16 for value in kept.values())
    assert all(torch.equal(value.float(), model.state_dict()[name]) for name, value in kept.items())
    far = {"far": torch.tensor([1.0, 1.0e5]), "count": torch.tensor(70_000), "near": torch.tensor([0.1])}
    assert {name: value.dtype for name, value in halved(far).items()} == {
        "far": torch.float32, "count": torch.int64, "near": torch.float16}


def test_prose_does_not_change_a_fingerprint_and_code_does(tmp_path: Path) -> None:
    sources = ['"""Doc."""\ndef f(x):\n    """Doc."""\n    return x + 1\n', "# why\ndef f(x):\n    return (x + 1)  # so\n",
               "def f(x):\n    return x + 2\n"]
    trees = []
    for i, source in enumerate(sources):
        file = tmp_path / f"{i}.py"
        file.write_text(source)
        trees.append(_syntax(file))
    assert trees[0] == trees[1] != trees[2]


def test_killed_while_it_writes_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process is killed when its 20th checkpoint is written and does not bear its name yet; this one goes on."""
    dead = subprocess.run([sys.executable, train_small.__file__, tmp_path / "killed", "20"],
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    assert {file.name for file in (tmp_path / "killed").iterdir()} == {"checkpoint.safetensors", "checkpoint.partial"}
    begun, resume = [], Training._resume
    monkeypatch.setattr(Training, "_resume", lambda self: (resume(self), begun.append(self.step)))
    logs = [train_small.train_small(tmp_path / name).drop(columns=["seconds", "images_per_s"]) for name in ("whole", "killed")]
    assert begun == [0, 19]
    whole, killed = (read_tensors(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    pd.testing.assert_frame_equal(*logs)


class Blur(Trainable):
    """A convolution that learns to blur; its power fails at batch `last`."""

    def __init__(self, last: float = math.inf) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Conv2d(4, 1, 3, padding=1))
        self.left = [last]

    def loss(self, batch: dict, player: str) -> torch.Tensor:
        self.left[0] -= 1
        if self.left[0] < 0:
            raise InterruptedError
        return (self.layers(batch["x"]) - nn.functional.avg_pool2d(batch["x"], 3, 1, 1)).square().mean()


@pytest.mark.parametrize(("optimiser", "seconds", "cuts"), [("adamw", 20, [40]), ("muon", 20, [40]), ("adamw", 0, 6 * [9])])
def test_interrupted_ends_in_the_same_weights(tmp_path: Path, optimiser: str, seconds: float, cuts: list[int],
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmri_lib.training.loop.time.perf_counter", itertools.count(0.0, 4.0).__next__)
    settings = TrainSettings(steps=60, optimiser=optimiser, learning_rate=0.02, ema=0.9, log_every=10)
    data = {"x": torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))}
    log = train(Blur(), data, settings, tmp_path / "whole")
    for last in cuts:
        with pytest.raises(InterruptedError):
            train(Blur(last), data, settings, tmp_path / "cut", checkpoint_seconds=seconds)
    # Of 40 steps some came after the last checkpoint and are repeated, not all; with one at every step none is.
    step = read_note(tmp_path / "cut" / "checkpoint.safetensors")["step"]
    assert 30 < step < 40 if seconds else step == sum(cuts)
    resumed = Blur(last=60 - step)
    again = train(resumed, data, settings, tmp_path / "cut")
    whole = read_tensors(tmp_path / "whole" / "weights.safetensors")
    assert all(torch.equal(whole[k], v) for k, v in resumed.state_dict().items())
    assert resumed.left == [0] and log["loss_model"].iloc[-1] < 0.2 * log["loss_model"].iloc[0]
    pd.testing.assert_frame_equal(*(rows.drop(columns=["seconds", "images_per_s"]) for rows in (log, again)))


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


class TwoPlayers(Trainable):
    """min over x, max over y of x² + 2xy − y²: saddle at the origin."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.y = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))

    def parameter_groups(self) -> dict:
        return {"critic": [self.y], "generator": [self.x]}

    def loss(self, batch: dict, player: str) -> torch.Tensor:
        value = (self.x.square() + 2 * self.x * self.y - self.y.square()).sum()
        return value if player == "generator" else -value


def test_adversarial_players_reach_their_saddle_and_resume(tmp_path: Path) -> None:
    model = TwoPlayers()
    log = train(model, {"z": torch.zeros(4, 1)}, TrainSettings(steps=400, batch=2, learning_rate=0.05, ema=0.9), tmp_path)
    assert model.x.abs().item() < 0.01 and model.y.abs().item() < 0.01
    assert {"loss_critic", "loss_generator"} <= set(log)


def test_each_epoch_shows_every_image_once(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watch(Line):
        def loss(self, batch: dict, player: str) -> torch.Tensor:
            seen.extend(batch["i"].tolist())
            return super().loss(batch, player)

    data = {**line_data(12), "i": torch.arange(12)}
    train(Watch(), data, TrainSettings(steps=6, batch=4), tmp_path)
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12)) and seen[:12] != seen[12:]


def test_validation_loss_uses_held_out_data(tmp_path: Path) -> None:
    log = train(Line(), line_data(), TrainSettings(steps=200, batch=16, learning_rate=0.1, validate_every=100, log_every=50),
                tmp_path, validation={"x": torch.zeros(4, 1), "y": torch.zeros(4, 1)})
    assert log["validation_loss"].notna().sum() == 2
    assert log["validation_loss"].iloc[-1] == pytest.approx(4, rel=0.1)  # (b − 0)² at b = −2


def test_a_part_that_a_network_keeps_frozen_is_in_eval_mode_from_the_first_step_on(tmp_path: Path) -> None:
    seen = []

    class HalfFrozen(Line):
        def __init__(self) -> None:
            super().__init__()
            self.frozen = nn.Dropout()

        def train(self, mode: bool = True) -> HalfFrozen:
            super().train(mode)
            self.frozen.eval()
            return self

        def loss(self, batch: dict, player: str) -> torch.Tensor:
            seen.append((self.training, self.frozen.training, torch.is_grad_enabled()))
            return super().loss(batch, player)

    assert HalfFrozen().frozen.training, "a network that is new has not been asked"
    train(HalfFrozen(), line_data(), TrainSettings(steps=6, batch=16, validate_every=2, log_every=1), tmp_path,
          validation=line_data(8))
    assert seen == 3 * [(True, False, True), (True, False, True), (False, False, False)]


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lengths"):
        train(Line(), {"x": torch.zeros(3, 1), "y": torch.zeros(2, 1)}, TrainSettings(steps=1), tmp_path)
    with pytest.raises(ParameterError, match="steps"):
        TrainSettings(steps=0)
    with pytest.raises(ParameterError, match="sgd"):
        TrainSettings(steps=1, optimiser="sgd")
    with pytest.raises(DataError, match="loss became"):
        train(Line(), {"x": torch.full((4, 1), torch.inf), "y": torch.zeros(4, 1)}, TrainSettings(steps=1), tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="weights.safetensors"):
        load_weights(Line(), tmp_path / "weights.safetensors")


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"\0" * 64),
                                    lambda file: file.write_text("step\n1\n"), lambda file: file.write_text("")])
def test_a_damaged_log_is_named(tmp_path: Path, damage) -> None:
    torch.manual_seed(1)
    model = Line()
    train(deepcopy(model), line_data(), TrainSettings(steps=2), tmp_path)
    damage(tmp_path / "log.csv")
    with pytest.raises(CheckpointError, match="(?s)log.csv: not the log of a training.*Remedy: delete"):
        train(model, line_data(), TrainSettings(steps=2), tmp_path)


def test_neighbouring_seeds_share_nothing() -> None:
    seeds = {mixed_seed(s, k, r) for s in range(20) for k in range(-2, 50) for r in range(4)}
    assert len(seeds) == 20 * 52 * 4 and all(0 <= s < 2**62 for s in seeds)


def test_augmentation_moves_image_and_mask_together() -> None:
    mask = torch.zeros(8, 32, 32, dtype=torch.uint8)
    mask[:, 8:20, 10:24] = 2
    image = torch.where(mask > 0, 0.8, -0.8)[:, None]
    out = Augment(gamma=0, contrast=0, noise=0)({"image": image, "mask": mask})
    inside = (out["image"][:, 0] > 0) == (out["mask"] > 0)
    assert inside.float().mean() > 0.98 and not torch.equal(out["mask"], mask)
    assert out["mask"].dtype == torch.uint8 and set(out["mask"].unique().tolist()) <= {0, 2}


def test_maps_are_uniform_up_to_their_limits() -> None:
    """Rotation times stretches: columns at right angles, whose lengths are the stretches."""
    maps = Augment(rotation=20.0, scale=0.2, shift=0.1)._affine(20_000, torch.zeros(()))
    across, down, moved = maps.unbind(-1)
    assert (across * down).sum(1).abs().max() < 1e-6 and torch.linalg.det(maps[:, :, :2]).min() > 0
    wide, high = across.norm(dim=1), down.norm(dim=1)
    angle, size = torch.rad2deg(torch.atan2(across[:, 1], across[:, 0])), (wide + high) / 2 - 1
    for found, limit in ((angle, 20), (size, 0.2), (wide - high, 0.2), (moved[:, 0] / 2, 0.1), (moved[:, 1] / 2, 0.1)):
        assert found.min().item() == pytest.approx(-limit, rel=0.02) and found.max().item() == pytest.approx(limit, rel=0.02)
        assert found.abs().max() <= limit * (1 + 1e-5) and found.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)


def test_intensities_are_uniform_up_to_their_limits() -> None:
    still = Augment(rotation=0, scale=0, shift=0, gamma=0, contrast=0, noise=0)
    halves = torch.cat([torch.full((4000, 1, 4, 2), -0.5), torch.full((4000, 1, 4, 2), 0.5)], -1)
    assert torch.allclose(still({"image": halves})["image"], halves, atol=1e-6)
    bent = (replace(still, gamma=0.4)({"image": 0 * halves})["image"][:, 0, 0, 0] + 1) / 2  # 1/2 to the power exp(γ)
    changed = replace(still, contrast=0.2)({"image": halves})["image"][:, 0, 0]
    low, high = changed[:, 0], changed[:, -1]
    for found, limit in ((torch.log(-torch.log2(bent)), 0.4), (high - low - 1, 0.2), ((high + low) / 2, 0.2)):
        assert found.min().item() == pytest.approx(-limit, rel=0.02) and found.max().item() == pytest.approx(limit, rel=0.02)
        assert found.abs().max() <= limit * (1 + 1e-5)
    noise = replace(still, noise=0.1)({"image": torch.zeros(300, 1, 64, 64)})["image"].std((1, 2, 3))
    assert noise.min() < 0.002 and 0.098 < noise.max() < 0.104  # a deviation of 4096 numbers is known to 1 %
    assert noise.mean().item() == pytest.approx(0.05, rel=0.1)
