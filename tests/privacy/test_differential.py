"""Private training: every part against an explicit loop, a closed form or an independent library."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from cmri_lib.errors import DataError, ParameterError
from cmri_lib.generators.diffusion import Diffusion
from cmri_lib.generators.flow import FlowMatching, FlowSettings
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.unet import Denoiser, UNetSettings
from cmri_lib.privacy.differential.accountant import noise_multiplier, spent
from cmri_lib.privacy.differential.canaries import LARGEST, epsilon_lower_bound, p_value, right_guesses
from cmri_lib.privacy.differential.training import PATIENT, Mechanism, refuse_mixing, train_privately
from cmri_lib.training import TrainSettings
from cmri_lib.training.checkpoint import read_note
from cmri_lib.training.loop import Trainable, Training

MECHANISM = Mechanism(rate=0.5, patients=3.0, slices=4, clip=0.3, noise=1.0)


class Regression(Trainable):
    """A small convolutional network with fixed targets: its loss draws nothing at random."""

    def __init__(self, norm: nn.Module | None = None):
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), norm or nn.GroupNorm(2, 4), nn.SiLU(),
                                     nn.Conv2d(4, 1, 3, padding=1))
        for parameter in self.parameters():  # the usual zeros and ones would hide mistakes
            nn.init.normal_(parameter, std=0.5)

    def loss(self, batch: dict[str, Tensor], group: str) -> Tensor:
        return (self.network(batch["image"]) - batch["target"]).square().mean()


def batches(count: int = 5, size: int = 8) -> list[dict[str, Tensor]]:
    """One batch for each patient, of unequal length."""
    return [{name: torch.randn(1 + k % 3, 1, size, size) * (1 + k) for name in ("image", "target")} for k in range(count)]


# --- the clipped sum
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_clipped_sum_is_that_of_an_explicit_loop_and_of_vmapped_gradients(layout: torch.memory_format) -> None:
    model, given_ = Regression().to(memory_format=layout), batches()
    given_ = [{k: v.contiguous(memory_format=layout) for k, v in batch.items()} for batch in given_]
    found = MECHANISM.clipped_sum(model, given_)
    expected, clipped = [torch.zeros_like(p) for p in model.parameters()], 0
    for batch in given_:
        model.zero_grad()
        model.loss(batch, "model").backward()
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters()))
        clipped += norm > MECHANISM.clip
        for total, p in zip(expected, model.parameters()):
            total += p.grad * min(1.0, MECHANISM.clip / norm)
    assert clipped >= 1 and all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, expected))

    # Patients of equal size at once, by torch.func.
    weights = {name: p.detach() for name, p in model.named_parameters()}
    same = [{k: v[:1] for k, v in batch.items()} for batch in given_]

    def loss(parameters: dict[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
        inner = {name.removeprefix("network."): p for name, p in parameters.items()}
        return (torch.func.functional_call(model.network, inner, image) - target).square().mean()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(
        weights, *(torch.stack([batch[k] for batch in same]) for k in ("image", "target")))
    norms = torch.stack([g.flatten(1).square().sum(1) for g in each.values()]).sum(0).sqrt()
    factors = (MECHANISM.clip / norms).clamp(max=1)
    at_once = [torch.einsum("p,p...->...", factors, g) for g in each.values()]
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(MECHANISM.clipped_sum(model, same), at_once))


@given(scale=st.floats(1e-3, 1e3), clip=st.floats(1e-2, 10), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_one_patient_moves_the_sum_by_no_more_than_the_clipping_norm(scale: float, clip: float, seed: int) -> None:
    torch.manual_seed(seed)
    model, others = Regression(), batches(2)
    newcomer = {name: values * scale for name, values in batches(1)[0].items()}
    rule = Mechanism(0.5, 1.0, 4, clip, 0.0)
    with_, without = rule.clipped_sum(model, [*others, newcomer]), rule.clipped_sum(model, others)
    moved = math.sqrt(sum((a - b).double().square().sum().item() for a, b in zip(with_, without)))
    assert moved <= clip * (1 + 1e-4) + 1e-5


def test_a_gradient_that_is_not_finite_stops_the_training() -> None:
    broken = batches(1)
    broken[0]["image"][0, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="norm nan"):
        MECHANISM.clipped_sum(Regression(), broken)


# --- noise and sampling
def test_the_noise_has_the_variance_that_is_asked_for_and_the_mean_that_was_expected() -> None:
    model = Regression()
    rule = Mechanism(0.5, 4.0, 4, 0.3, 2.0)
    draws = torch.stack([torch.cat([g.flatten() for g in rule.gradient(model, [])]) for _ in range(400)])
    spread = rule.noise * rule.clip / rule.patients
    assert draws.std().item() == pytest.approx(spread, rel=0.02) and abs(draws.mean().item()) < 0.01
    assert stats.kstest(draws.flatten()[:5000].numpy() / spread, "norm").pvalue > 1e-3
    given_ = batches(3)
    exact = [total / rule.patients for total in rule.clipped_sum(model, given_)]
    quiet = Mechanism(0.5, 4.0, 4, 0.3, 0.0).gradient(model, given_)
    assert all(torch.equal(a, b) for a, b in zip(exact, quiet))  # by the expected number, not by the three that came


def test_every_patient_is_drawn_with_the_rate_and_without_the_others() -> None:
    owners = [torch.arange(10 * k, 10 * k + 3 + k) for k in range(6)]
    rule, repeats = Mechanism(0.3, 1.8, 4, 1.0, 1.0), 4000
    seen = np.zeros((repeats, len(owners)))
    for repeat in range(repeats):
        for rows in rule.draw(owners):
            assert len(rows) == len(set(rows.tolist())) <= 4
            seen[repeat, int(rows[0]) // 10] = 1
            assert set(rows.tolist()) <= set(owners[int(rows[0]) // 10].tolist())
    assert np.allclose(seen.mean(0), 0.3, atol=0.03)
    assert np.abs(np.corrcoef(seen.T) - np.eye(len(owners))).max() < 0.07
    assert (seen.sum(1) == 0).mean() == pytest.approx(0.7**6, abs=0.02)  # nobody at all, now and then
    assert len(Mechanism(1.0, 6.0, 4, 1.0, 1.0).draw(owners)) == 6


# --- the training
def private_data(patients: int = 4, each: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(1)
    image = torch.randn(patients * each, 1, 8, 8)
    return {"image": image, "target": 0.5 * image, PATIENT: torch.arange(patients).repeat_interleave(each)}


def fresh() -> Regression:
    torch.manual_seed(0)
    return Regression()


STEPS = TrainSettings(steps=6, batch=6, learning_rate=1e-2, grad_clip=0.0, ema=0.5, log_every=2, seed=3)


def test_a_private_training_is_repeatable_kept_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again, killed = fresh(), fresh(), fresh()
    log = train_privately(first, private_data(), STEPS, MECHANISM, tmp_path / "a")
    assert log["step"].tolist() == [2, 4, 6] and log["loss_model"].isna().all() and (log["grad_norm"] > 0).all()
    whole = {name: value.clone() for name, value in first.state_dict().items()}

    step = Training._save
    class Killed(Exception):
        pass

    def kill(self, name: str) -> None:
        step(self, name)
        if self.step == 3:
            raise Killed
    monkeypatch.setattr(Training, "_save", kill)
    with pytest.raises(Killed):
        train_privately(killed, private_data(), STEPS, MECHANISM, tmp_path / "b", checkpoint_seconds=0.0)
    monkeypatch.undo()
    train_privately(again, private_data(), STEPS, MECHANISM, tmp_path / "b", checkpoint_seconds=0.0)
    assert all(torch.equal(value, whole[name]) for name, value in again.state_dict().items())

    monkeypatch.setattr(Training, "go", lambda self: pytest.fail("trained again"))
    loaded = fresh()
    train_privately(loaded, private_data(), STEPS, MECHANISM, tmp_path / "a")
    assert all(torch.equal(value, whole[name]) for name, value in loaded.state_dict().items())
    assert read_note(tmp_path / "a" / "weights.safetensors")["step"] == 6


def test_less_noise_another_patient_or_another_order_is_another_training(tmp_path: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    train_privately(fresh(), private_data(), STEPS, MECHANISM, tmp_path)
    monkeypatch.setattr(Training, "go", lambda self: "trained")
    moved = private_data() | {PATIENT: torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3])}
    for data, rule in ((private_data(), Mechanism(0.5, 3.0, 4, 0.3, 0.5)), (moved, MECHANISM), (private_data(3), MECHANISM)):
        assert train_privately(fresh(), data, STEPS, rule, tmp_path) == "trained"


def test_without_noise_and_clipping_a_private_training_learns(tmp_path: Path) -> None:
    model, data = fresh(), private_data()
    before = model.loss(data, "model").item()
    long = TrainSettings(steps=60, batch=6, learning_rate=3e-2, grad_clip=0.0, ema=0.5, log_every=20)
    train_privately(model, data, long, Mechanism(1.0, 4.0, 3, 100.0, 0.0), tmp_path)
    assert model.loss(data, "model").item() < 0.3 * before


def test_what_would_mix_patients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="batch normalisation"):
        refuse_mixing(Regression(nn.BatchNorm2d(4)))
    refuse_mixing(Regression(nn.InstanceNorm2d(4)))
    network = Denoiser(UNetSettings((8, 8), 1, 8), Conditioning())
    with pytest.raises(ParameterError, match="pool of 64"):
        refuse_mixing(FlowMatching(network, Conditioning(), FlowSettings(coupling="ot", pool=64)))
    refuse_mixing(FlowMatching(network, Conditioning(), FlowSettings(coupling="independent", pool=64)))
    refuse_mixing(Diffusion(network, Conditioning()))
    with pytest.raises(DataError, match="whose the rows are"):
        train_privately(fresh(), {"image": torch.zeros(2, 1, 8, 8)}, STEPS, MECHANISM, tmp_path)
    with pytest.raises(ParameterError, match="rate"):
        Mechanism(1.5, 3.0, 4, 0.3, 1.0)


# --- the accountant
def gaussian_delta(noise: float, epsilon: float) -> float:
    """δ of the Gaussian mechanism, exactly (Balle & Wang, ICML 2018, theorem 8)."""
    return stats.norm.cdf(0.5 / noise - epsilon * noise) - math.exp(epsilon) * stats.norm.cdf(-0.5 / noise - epsilon * noise)


@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_one_step_on_everybody_is_the_gaussian_mechanism(noise: float) -> None:
    delta = 1e-3
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(noise, middle) > delta else (low, middle)
    found = spent(noise, 1.0, 1, delta)
    assert high - 1e-6 <= found["PRV"] <= high + 0.03, "numerical, up to its own error of 0.01"
    assert high <= found["RDP"] <= 1.6 * high + 0.1


def test_steps_of_the_gaussian_mechanism_are_one_with_less_noise() -> None:
    once, often = spent(1.5, 1.0, 1, 1e-3), spent(1.5 * 3, 1.0, 9, 1e-3)
    assert often["RDP"] == pytest.approx(once["RDP"], rel=1e-6) and often["PRV"] == pytest.approx(once["PRV"], abs=0.03)


def test_the_accountant_gives_a_published_value() -> None:
    """Abadi et al. 2016, section 5.1: q = 0.01, σ = 4, δ = 1e-5, 10 000 steps: ε = 1.26 by the moments
    accountant."""
    found = spent(4.0, 0.01, 10_000, 1e-5)
    assert found["PRV"] < found["RDP"] < 1.27 and found["PRV"] > 0.8


def test_privacy_is_lost_with_steps_and_rate_and_saved_by_noise() -> None:
    base = spent(4.0, 0.1, 50, 1e-2)
    assert base["PRV"] <= base["RDP"]
    assert spent(4.0, 0.1, 100, 1e-2)["RDP"] > base["RDP"] and spent(4.0, 0.2, 50, 1e-2)["PRV"] > base["PRV"]
    assert spent(8.0, 0.1, 50, 1e-2)["PRV"] < base["PRV"] and spent(0.0, 0.1, 50, 1e-2) == {"RDP": math.inf, "PRV": math.inf}


def test_the_search_for_noise_keeps_to_the_budget() -> None:
    noise = noise_multiplier(2.0, 1e-2, 0.05, 20)
    assert 1.98 <= spent(noise, 0.05, 20, 1e-2)["RDP"] <= 2.0
    assert noise_multiplier(math.inf, 1e-2, 0.05, 20) == 0 and noise_multiplier(1.0, 1e-2, 0.05, 20) > noise


# --- canaries
def test_if_every_guess_is_right_the_bound_has_a_closed_form() -> None:
    for guesses in (5, 20, 60):
        q = 0.05 ** (1 / guesses)  # P[all right] = q^r = 5 %
        assert epsilon_lower_bound(100, guesses, guesses, 0.0) == pytest.approx(max(0.0, math.log(q / (1 - q))), abs=1e-4)
    assert epsilon_lower_bound(100, 20, 20, 1e-3) < epsilon_lower_bound(100, 20, 20, 0.0)
    assert epsilon_lower_bound(100, 20, 20, 0.0, confidence=0.999) < epsilon_lower_bound(100, 20, 20, 0.0)
    assert 7 < epsilon_lower_bound(5000, 5000, 5000, 0.0) < LARGEST
    assert epsilon_lower_bound(100, 20, 10, 0.0) == epsilon_lower_bound(100, 0, 0, 0.0) == 0


def test_without_delta_the_p_value_is_the_binomial_tail_and_with_it_that_of_a_sum() -> None:
    tail = sum(math.comb(12, k) * 0.75**k * 0.25 ** (12 - k) for k in range(10, 13))
    assert p_value(40, 12, 10, math.log(3), 0.0) == pytest.approx(tail)
    mass = [math.comb(12, k) * 0.75**k * 0.25 ** (12 - k) for k in range(13)]
    alpha = max(sum(mass[10 - i:10]) / i for i in range(1, 11))
    assert p_value(40, 12, 10, math.log(3), 1e-3) == pytest.approx(tail + 2 * 40 * 1e-3 * alpha)
    with pytest.raises(DataError, match="13 right"):
        p_value(40, 12, 13, 1.0, 0.0)


def test_the_bound_covers_random_guesses_and_randomised_response() -> None:
    generator, repeats, canaries = np.random.default_rng(0), 400, 40
    for epsilon in (0.0, 1.0):
        above = 0
        for _ in range(repeats):
            included = generator.random(canaries) < 0.5
            honest = generator.random(canaries) < 1 / (1 + math.exp(-epsilon))
            answers = np.where(honest, included, ~included)  # randomised response is exactly ε-private
            scores = answers + 0.1 * generator.random(canaries)
            right = right_guesses(scores, included, 20)
            above += p_value(canaries, 20, right, epsilon, 0.0) < 0.05  # then the lower bound lies above ε
        assert above / repeats <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repeats), epsilon


def test_guesses_come_from_both_ends() -> None:
    scores, included = np.array([5, 4, 3, 2, 1.0]), np.array([True, False, True, True, False])
    assert [right_guesses(scores, included, n) for n in range(6)] == [0, 1, 2, 2, 2, 3]
    with pytest.raises(DataError, match="6 guesses"):
        right_guesses(scores, included, 6)
