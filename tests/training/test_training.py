"""The loop: its steps are those of the formulas, and what it is given is looked at first."""

from __future__ import annotations

import math
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from trainables import Line, Pair, line_data

from cmri_lib.errors import CheckpointError, DataError, ParameterError
from cmri_lib.training import AdversarialTraining, Trainable, TrainSettings, train
from cmri_lib.training.checkpoint import halved, load_weights, read_tensors
from cmri_lib.training.loop import device_name


def test_fits_the_least_squares_line(tmp_path: Path) -> None:
    model = Line()
    log = train(model, line_data(), TrainSettings(steps=800, batch=16, learning_rate=0.1, ema=0.9), tmp_path)
    assert model.linear.weight.item() == pytest.approx(3, abs=0.02)
    assert model.linear.bias.item() == pytest.approx(-2, abs=0.02)
    assert log["loss_model"].iloc[-1] < 1e-3 * log["loss_model"].iloc[0]
    assert not model.training


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


def test_rates_decays_and_snapshots_are_those_counted_by_hand() -> None:
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


def test_a_device_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"GPU {device.index}")
    assert device_name(torch.device("cpu")) == "cpu" and device_name(torch.device("cuda", 1)) == "GPU 1"


def test_a_launch_that_would_change_the_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accelerator = SimpleNamespace(mixed_precision="no", num_processes=3, process_index=0, device=torch.device("cpu"),
                                  prepare=None)
    monkeypatch.setattr("cmri_lib.training.shared.Accelerator", lambda **_: accelerator)
    with pytest.raises(ParameterError, match="(?s)4 images for 3 processes.*multiple"):
        train(Line(), line_data(), TrainSettings(steps=1, batch=4), tmp_path)
    accelerator.mixed_precision = "bf16"
    with pytest.raises(ParameterError, match="(?s)launch sets bf16.*precision.*params.yaml"):
        train(Line(), line_data(), TrainSettings(steps=1, batch=6), tmp_path)


def test_what_is_sampled_is_what_is_kept_in_half_the_space(tmp_path: Path) -> None:
    model = Line()
    train(model, line_data(), TrainSettings(steps=60, batch=4), tmp_path)
    kept = read_tensors(tmp_path / "weights.safetensors")
    assert all(value.dtype == torch.float16 for value in kept.values())
    assert all(torch.equal(value.float(), model.state_dict()[name]) for name, value in kept.items())
    far = {"far": torch.tensor([1.0, 1.0e5]), "count": torch.tensor(70_000), "near": torch.tensor([0.1])}
    assert {name: value.dtype for name, value in halved(far).items()} == {
        "far": torch.float32, "count": torch.int64, "near": torch.float16}


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


def test_adversarial_players_reach_their_saddle(tmp_path: Path) -> None:
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
