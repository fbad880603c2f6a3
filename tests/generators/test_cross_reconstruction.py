"""C11's objective: another state of the same patient, and codes that several images agree on."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cmri_lib.errors import DataError, ParameterError
from cmri_lib.generators.cross_reconstruction import CrossObjective, CrossVAE
from cmri_lib.networks.acquisition import AcquisitionState
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.training import TrainSettings, train


class Known(nn.Module):
    """A code of mean image value and given log-variance, and back: an image of the code's value plus the state."""

    def __init__(self, log_variance: float = 0.0):
        super().__init__()
        self.log_variance, self.unused = log_variance, nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, batch: dict) -> tuple[Tensor, Tensor] | Tensor:
        if x.dim() == 4:
            mean = x.mean((1, 2, 3))[:, None]
            return mean, torch.full_like(mean, self.log_variance)
        return (x + batch["state"][:, None])[:, :, None, None].expand(-1, 1, 4, 4)


def known(log_variance: float = 0.0, **objective: float) -> CrossVAE:
    return CrossVAE(Known(log_variance), Known(), 1, Conditioning(), CrossObjective(**objective))


def patients(count: int = 6, states: int = 5) -> dict[str, Tensor]:
    """Each state of a patient is an image of the patient's number plus a tenth of the state's."""
    values = torch.arange(count)[:, None] + 0.1 * torch.arange(states)
    images = values[:, :, None, None, None].expand(-1, -1, 1, 4, 4).clone()
    return {"image": images, "state": 0.1 * torch.arange(states).repeat(count, 1)}


def test_a_pair_shows_one_patient_in_two_states() -> None:
    seen = set()
    for _ in range(40):
        source, target = known().draw_pair(patients())
        assert source["image"].shape == (6, 1, 4, 4) and source["state"].shape == (6,)
        assert (torch.equal(source["image"][:, 0, 0, 0].floor(), torch.arange(6.0))
                and (source["state"] != target["state"]).all())
        torch.testing.assert_close(target["image"][:, 0, 0, 0] - target["state"], torch.arange(6.0))
        seen |= {(round(10 * a), round(10 * b)) for a, b in zip(source["state"].tolist(), target["state"].tolist())}
    assert len(seen) == 20  # every ordered pair of five states
    with pytest.raises(DataError, match="at least two"):
        known().draw_pair(patients(states=1))


def test_the_loss_is_the_bound_on_the_target_in_closed_form() -> None:
    source, target = ({"image": torch.full((3, 1, 4, 4), value), "state": torch.full((3,), 0.5)} for value in (2.0, 1.5))
    model = known(-60.0).eval()  # a code without noise: the answer is 2 + 0.5 where 1.5 is true
    likelihood, divergence = model.elbo_terms(source, target)
    assert likelihood.item() == pytest.approx(-8 * (math.log(2 * math.pi) + 1), rel=1e-5)  # 16 pixels, squared error 1
    assert divergence.tolist() == pytest.approx([0.5 * (4 + 0 - 1 + 60)] * 3)
    batch = {"image": torch.zeros(2, 2, 1, 4, 4), "state": torch.zeros(2, 2)}
    plain, heavy = (known(-1.0, least_sigma=10.0, kl_weight=beta).eval() for beta in (1.0, 5.0))
    torch.manual_seed(3), (first := plain.loss(batch, "model")), torch.manual_seed(3)
    divergence = 0.5 * (math.exp(-1) - 1 + 1)
    assert (heavy.loss(batch, "model") - first).item() == pytest.approx(4 * divergence / 16, rel=1e-4)


def test_codes_of_several_images_are_joined_by_their_precision() -> None:
    first, second = ({"image": torch.full((2, 1, 4, 4), value)} for value in (1.0, 3.0))
    model = known(math.log(0.2)).eval()
    assert model.infer([first]).flatten().tolist() == pytest.approx([1.0, 1.0])
    # two Gaussians of variance 0.2 over one prior: (5·1 + 5·3) / (1 + 4 + 4)
    assert model.infer([first, second])[0].item() == pytest.approx(20 / 9)
    vague = known(math.log(2.0)).eval()  # says less than the prior, and so nothing
    assert vague.infer([first, second])[0].item() == pytest.approx(4.0)


def test_phase_and_time_are_planes_that_depend_on_both() -> None:
    condition = AcquisitionState({"contraction": (0.5, 0.5), "log_inversion_time": (6.0, 2.0)}, channels=8, size=4)
    batch = {"contraction": torch.tensor([0.0, 0.0, 1.0]), "log_inversion_time": torch.tensor([0.0, 1.0, 0.0])}
    planes = condition.planes(batch)
    assert planes.shape == (3, 8, 4, 4) and torch.equal(planes, planes[..., :1, :1].expand_as(planes))
    assert not torch.allclose(planes[0], planes[1]) and not torch.allclose(planes[0], planes[2])
    assert "0.5" in repr(condition) and condition.fields == ("contraction", "log_inversion_time")


class Learnt(nn.Module):
    """The same with two weights to learn: what of the source's state goes into the code, and how far the target's shifts it."""

    def __init__(self) -> None:
        super().__init__()
        self.removed, self.shift = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def encode(self, image: Tensor, batch: dict) -> tuple[Tensor, Tensor]:
        mean = (image.mean((1, 2, 3)) - self.removed * batch["state"])[:, None]
        return mean, torch.full_like(mean, -8.0)

    def forward(self, code: Tensor, batch: dict) -> Tensor:
        return (code + self.shift * batch["state"][:, None])[:, :, None, None].expand(-1, 1, 4, 4)


def test_training_on_other_states_takes_the_state_out_of_the_code(tmp_path: Path) -> None:
    weights = Learnt()

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = weights

        def forward(self, image: Tensor, batch: dict) -> tuple[Tensor, Tensor]:
            return self.weights.encode(image, batch)

    model = CrossVAE(Encoder(), weights, 1, Conditioning(), CrossObjective(least_sigma=0.05))
    train(model, patients(), TrainSettings(steps=100, batch=6, learning_rate=0.1, ema=0.9, log_every=50), tmp_path)
    assert weights.removed.item() == pytest.approx(1, abs=0.15) and weights.shift.item() == pytest.approx(1, abs=0.15)


def test_source_and_target_are_moved_alike_and_only_in_training() -> None:
    image = torch.zeros(5, 2, 1, 32, 32)
    image[:, :, :, 10:20, 6:14] = torch.tensor([1.0, -0.5])[None, :, None, None, None]
    model = known(rotation=30.0, scale=0.2, shift=0.1)
    source, target = model.moved({"image": image[:, 0]}, {"image": image[:, 1]})
    torch.testing.assert_close(target["image"], -0.5 * source["image"])
    assert len({round(float(part.sum()), 3) for part in source["image"]}) == 5  # each patient's move is his or her own
    calls = []
    model.moved = lambda *pair: calls.append(1) or pair
    batch = {"image": torch.zeros(2, 2, 1, 4, 4), "state": torch.zeros(2, 2)}
    assert model.eval().loss(batch, "model").isfinite() and not calls
    assert model.train().loss(batch, "model").isfinite() and calls == [1]


@pytest.mark.parametrize("field", ["kl_weight", "rotation", "scale", "shift"])
def test_negative_settings_are_refused(field: str) -> None:
    with pytest.raises(ParameterError, match=field):
        CrossObjective(**{field: -1.0})
