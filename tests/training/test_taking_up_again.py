"""A training that is finished, cut short or whose code has changed: what is kept of it, and that its weights are the same."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import train_small
from torch import nn
from trainables import Line, Pair, line_data

from cmri_lib.generators.gan import GAN, GANSettings
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.training import AdversarialTraining, Trainable, TrainSettings, train
from cmri_lib.training.checkpoint import read_note, read_tensors
from cmri_lib.training.fingerprint import training_fingerprint
from cmri_lib.training.kept import TURN
from cmri_lib.training.loop import Training


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


def test_who_comes_second_waits_and_finds_it_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    first = Line()
    second, settings, trained = deepcopy(first), TrainSettings(steps=60), []
    begun, waiting, go_on, go = threading.Event(), threading.Event(), threading.Event(), Training.go

    def slow(self: Training) -> pd.DataFrame:
        begun.set()
        assert go_on.wait(30)
        trained.append(self.model)
        return go(self)

    monkeypatch.setattr(Training, "go", slow)
    monkeypatch.setattr("cmri_lib.training.kept.tqdm.write", lambda text, file: waiting.set())
    with ThreadPoolExecutor(2) as commands:
        one = commands.submit(train, first, line_data(), settings, tmp_path)
        assert begun.wait(30)
        other = commands.submit(train, second, line_data(), settings, tmp_path)
        assert waiting.wait(30) and not other.done()
        go_on.set()
    pd.testing.assert_frame_equal(one.result(), other.result())
    assert trained == [first] and torch.equal(first.linear.weight, second.linear.weight)


def change_code(monkeypatch: pytest.MonkeyPatch, same: bool) -> None:
    """The code has another digest, and does the `same` or something else."""
    monkeypatch.setattr("cmri_lib.training.fingerprint.code_digest", lambda *objects: "other code")
    if not same:
        monkeypatch.setattr(Line, "loss",
                            lambda self, batch, group: 1.01 * (self.linear(batch["x"]) - batch["y"]).square().mean())


@contextmanager
def interrupted_at_25(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The training within is interrupted before its step 25; other patches that are made to it end with it."""
    step = Training._step

    def until_25(self: Training) -> tuple:
        if self.step == 25:
            raise InterruptedError
        return step(self)

    with monkeypatch.context() as patches, pytest.raises(InterruptedError):
        patches.setattr(Training, "_step", until_25)
        yield patches


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
    with interrupted_at_25(monkeypatch):
        train(cut, line_data(), settings, tmp_path / "cut", checkpoint_seconds=0)
    change_code(monkeypatch, same)
    begun = []
    resume = Training._resume
    monkeypatch.setattr(Training, "_resume", lambda self: (resume(self), begun.append(self.step)))
    train(again, line_data(), settings, tmp_path / "cut")
    assert begun == ([25] if same else [0])
    assert not same or torch.equal(again.linear.weight, uncut.linear.weight)


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


def test_a_training_names_every_device_that_had_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainSettings(steps=40, batch=4)
    torch.manual_seed(1)
    cut = Line(0.1)
    again = deepcopy(cut)
    with interrupted_at_25(monkeypatch) as patches:
        patches.setattr("cmri_lib.training.loop.device_name", lambda device: "a GPU")
        train(cut, line_data(), settings, tmp_path, checkpoint_seconds=0)
    train(again, line_data(), settings, tmp_path)
    assert read_note(tmp_path / "weights.safetensors")["device"] == "a GPU + cpu"


def test_killed_while_it_writes_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process is killed when its 20th checkpoint is written and does not bear its name yet; this one goes on."""
    dead = subprocess.run([sys.executable, train_small.__file__, tmp_path / "killed", "20"],
                          env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    assert {file.name for file in (tmp_path / "killed").iterdir()} == {"checkpoint.safetensors", "checkpoint.partial", TURN}
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


class Growing(nn.Module):
    """A network of one layer, whose answer grows with the share of the training that has passed."""

    def __init__(self, before: int, after: tuple[int, ...]) -> None:
        super().__init__()
        self.layer, self.after, self.size = nn.Linear(before, math.prod(after)), after, 0.0

    def grow(self, progress: float) -> None:
        self.size = 1 + progress

    def forward(self, x: torch.Tensor, batch: dict) -> torch.Tensor:
        return (self.size * self.layer(x.flatten(1))).reshape(len(x), *self.after)


def adversaries() -> GAN:
    """Whatever a step may depend on: turns of the two, lazy R1, growth, a rate of augmentation that the critic moves."""
    torch.manual_seed(0)
    settings = GANSettings(latent=3, critic_steps=2, r1=1.0, r1_every=3, augment="ada")
    return GAN(Growing(3, (1, 8, 8)), Growing(64, ()), Conditioning(), settings)


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_adversaries_that_are_interrupted_end_where_uninterrupted_ones_do(tmp_path: Path, optimiser: str,
                                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """Before step 25, when the critic has moved once and the generator waits for its turn."""
    settings = AdversarialTraining(steps=40, batch=4, optimiser=optimiser, learning_rate=0.02, critic_rate=2.0, ema=0.9,
                                   log_every=10)
    data = {"image": torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))}
    uncut, cut, again = (adversaries() for _ in range(3))
    log = train(uncut, data, settings, tmp_path / "uncut")
    with interrupted_at_25(monkeypatch):
        train(cut, data, settings, tmp_path / "cut", checkpoint_seconds=0)
    begun, resume = [], Training._resume
    monkeypatch.setattr(Training, "_resume", lambda self: (resume(self), begun.append(self.step)))
    log_again = train(again, data, settings, tmp_path / "cut")
    assert begun == [25]
    whole, before = uncut.state_dict(), adversaries().state_dict()
    assert all(torch.equal(whole[name], value) for name, value in again.state_dict().items())
    assert not any(torch.equal(whole[name], value) for name, value in before.items()), "each part is trained"
    pd.testing.assert_frame_equal(*(rows.drop(columns=["seconds", "images_per_s"]) for rows in (log, log_again)))
