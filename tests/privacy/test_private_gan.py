"""C18: a GAN of latents whose critic alone looks at patients, clipped and noised; its generator sees nothing of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import discs
from torch import Tensor, nn

from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import open_study
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.generators.base import draw, training_batch
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.privacy.attack import Target
from cmri_lib.privacy.attacks.critic import CriticOutput
from cmri_lib.privacy.differential.training import PATIENT, Mechanism, private_group, train_privately
from cmri_lib.systems.private import RDP_CGAN
from cmri_lib.training import TrainSettings, Trainable
from cmri_lib.training.checkpoint import read_tensors

SLICES = discs(6, 3)
SETTINGS = TrainSettings(steps=4, batch=4, log_every=2, learning_rate=1e-2, ema=0.5)


def made(seed: int = 0) -> tuple[Trainable, dict[str, Tensor]]:
    """The system with the autoencoder of its first weights, and its data."""
    model = RDP_CGAN.build(open_study("smoke", "phantom").params, Vocabulary.of(SLICES), seed)
    data = model.prepare(training_batch(SLICES, Conditioning()))
    codes = np.unique(SLICES.patients, return_inverse=True)[1]
    return model, data | {PATIENT: torch.from_numpy(codes)}


def test_samples_do_not_depend_on_their_neighbours_and_the_critic_judges_images(tmp_path: Path) -> None:
    model, data = made()
    train_privately(model, data, SETTINGS, Mechanism(0.5, 3.0, 2, 0.1, 1.0), tmp_path)
    everything, some = (draw(model, conditions, "C18") for conditions in (SLICES, SLICES.take([0])))
    np.testing.assert_allclose(everything.images[:1], some.images, atol=1e-5)
    assert everything.images.std(axis=0).mean() > 0
    logits = CriticOutput().scores(Target("C18", frozenset(), model), SLICES)["logit"].to_numpy()
    wanted = model.prior.critic(model.compress(torch.from_numpy(SLICES.images)), {}).detach()
    np.testing.assert_allclose(logits, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_only_the_critic_has_noise_and_the_generator_learns_from_it_alone(tmp_path: Path) -> None:
    def weights(noise: float, data_of: float) -> dict[str, Tensor]:
        model, data = made()
        data |= {"image": data["image"] * data_of}
        train_privately(model, data, replace(SETTINGS, steps=1), Mechanism(1.0, 6.0, 2, 0.1, noise),
                        tmp_path / f"{noise}{data_of}")
        return read_tensors(tmp_path / f"{noise}{data_of}" / "weights.safetensors")

    start = made()[0].state_dict()
    quiet, loud, other = weights(0.0, 1.0), weights(5.0, 1.0), weights(0.0, 0.0)
    moved = {name for name in start if not torch.allclose(start[name], quiet[name].float(), atol=1e-3)}
    assert any("critic" in name for name in moved) and any("generator" in name for name in moved)
    assert not any("autoencoder" in name for name in moved)
    differ = [name for name in start if not torch.equal(quiet[name], other[name])]
    assert any("critic" in name for name in differ), "the critic does not look at its patients"
    assert any(not torch.equal(quiet[name], loud[name]) for name in start if "critic" in name)


@pytest.mark.parametrize(("noise", "data_of"), [(0.0, 0.0), (5.0, 1.0)])
def test_without_the_critics_gradient_nothing_reaches_the_generator(noise: float, data_of: float, tmp_path: Path,
                                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """All that patients, and the noise that hides them, can change comes through the critic's private gradient."""
    monkeypatch.setattr(Mechanism, "gradient", lambda self, model, batches: [
        torch.zeros_like(p) for p in model.parameter_groups()[model.private_group]])

    def weights(noise: float, data_of: float) -> dict[str, Tensor]:
        model, data = made()
        folder = tmp_path / f"{noise} {data_of}"
        train_privately(model, data | {"image": data["image"] * data_of}, SETTINGS, Mechanism(1.0, 6.0, 2, 0.1, noise), folder)
        return read_tensors(folder / "weights.safetensors")

    start, usual, other = made()[0].state_dict(), weights(0.0, 1.0), weights(noise, data_of)
    assert any("generator" in name and not torch.equal(usual[name], start[name]) for name in start), "nothing was trained"
    assert all(torch.equal(usual[name], other[name]) for name in start)


class Cheat(Trainable):
    """Says that its generator looks at nobody, and looks."""

    private_group = "critic"

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterDict({name: nn.Parameter(torch.ones(())) for name in ("critic", "generator")})

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {name: [self.weights[name]] for name in self.weights}

    def loss(self, batch: dict, group: str) -> Tensor:
        return (self.weights[group] * batch["image"]).mean()


def test_a_generator_that_looks_at_patients_is_found_out(tmp_path: Path) -> None:
    data = {"image": torch.ones(6, 1), PATIENT: torch.arange(6)}
    with pytest.raises(DataError, match="private_group"):
        train_privately(Cheat(), data, SETTINGS, Mechanism(1.0, 6.0, 1, 0.1, 1.0), tmp_path)
    silent = Cheat()
    silent.private_group = None
    with pytest.raises(ParameterError, match="2 groups"):
        private_group(silent)
