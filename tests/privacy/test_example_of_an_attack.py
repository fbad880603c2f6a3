"""The attack of CONTRIBUTING.md, on autoencoders of which it is known what they restore."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import discs
from contributing import run_example
from torch import Tensor, nn

from cmri_lib.generators.diffusion import Diffusion
from cmri_lib.generators.flow import FlowMatching
from cmri_lib.generators.latent import Latent
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.privacy.attack import Attack, Target

MEMBERS, STRANGERS = discs(6, 2, 16, seed=1), discs(6, 2, 16, seed=2, split="holdout")


class Knows(nn.Module):
    """Restores the images that it knows, and makes others darker by `shift`."""

    def __init__(self, known: np.ndarray, shift: float):
        super().__init__()
        self.known, self.shift = torch.from_numpy(known), nn.Parameter(torch.tensor(shift))

    def reconstruct(self, images: Tensor) -> Tensor:
        same = (images[:, None] == self.known).flatten(2).all(2).any(1)
        return images - self.shift * (~same).float().view(-1, 1, 1, 1)


def latent(known: np.ndarray, shift: float = 0.5) -> Latent:
    return Latent(Knows(known, shift), FlowMatching(nn.Identity(), Conditioning()))


@pytest.fixture
def attack() -> Attack:
    return run_example("class Restoration")["Restoration"]()


def test_its_scores_are_minus_the_errors(attack: Attack) -> None:
    found = attack.scores(Target("g", frozenset(), latent(MEMBERS.images[:3])), MEMBERS)
    assert len(found) == len(MEMBERS) > 3 and list(found) == ["squares", "absolute"]
    np.testing.assert_allclose(found["squares"], [0] * 3 + [-0.25] * (len(MEMBERS) - 3), atol=1e-6)
    np.testing.assert_allclose(found["absolute"], [0] * 3 + [-0.5] * (len(MEMBERS) - 3), atol=1e-6)


def test_it_suits_systems_with_a_first_stage_alone(attack: Attack) -> None:
    assert attack.suits(Target("g", frozenset(), latent(MEMBERS.images)))
    assert not attack.suits(Target("g", frozenset(), Diffusion(nn.Identity(), Conditioning())))
    assert not attack.suits(Target("g", frozenset()))


@pytest.mark.parametrize("known, auc", [(MEMBERS, 1.0), (STRANGERS, 0.0), (MEMBERS.take([]), 0.5)])
def test_it_finds_whom_the_autoencoder_knows(attack: Attack, known, auc: float) -> None:
    rows = run_example("import Sides", Restoration=type(attack), members=MEMBERS, strangers=STRANGERS,
                       generator=latent(known.images))["rows"]
    values = {row["metric"]: row["value"] for row in rows}
    assert values["attack_auc_restoration"] == auc and set(values) >= {"attack_auc_max_restoration", "attack_tpr1_restoration"}
