"""The order of a training's images, and what a pool of them is given at once."""

from __future__ import annotations

import pytest
import torch

from cmri_lib.errors import ParameterError
from cmri_lib.training import TrainSettings
from cmri_lib.training.batches import Batch, Batches, mixed_seed

DATA = {"x": torch.arange(12)}


def ranks(images: Batch, generator: torch.Generator) -> Batch:
    """Of each image its rank in the pool, and a random number."""
    return {"rank": images["x"].argsort().argsort(), "noise": torch.rand(len(images["x"]), generator=generator)}


def batches(processes: int = 1, pool: int = 0, batch: int = 4) -> Batches:
    return Batches(DATA, TrainSettings(steps=9, batch=batch), processes, pool, ranks)


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    epochs = [torch.cat([batches().of(step, 0)["x"] for step in range(first, first + 3)]) for first in (0, 3)]
    assert all(torch.equal(epoch.sort().values, DATA["x"]) for epoch in epochs)
    assert not torch.equal(*epochs)


@pytest.mark.parametrize("pool", [0, 8, 24])
def test_processes_share_the_batch_of_one(pool: int) -> None:
    alone, shared = batches(pool=pool), batches(processes=2, pool=pool)
    for step in (5, 0, 1):
        parts = [shared.of(step, rank) for rank in (0, 1)]
        for name, whole in alone.of(step, 0).items():
            assert torch.equal(whole, torch.cat([part[name] for part in parts]))


def test_a_pool_is_coupled_as_a_whole() -> None:
    made = batches(pool=8)
    rows = [made.of(step, 0) for step in (2, 3)]  # the second pool
    x, rank, noise = (torch.cat([row[name] for row in rows]) for name in ("x", "rank", "noise"))
    assert torch.equal(rank, x.argsort().argsort())
    assert len(noise.unique()) == 8 and not torch.equal(noise[:4], made.of(0, 0)["noise"])


@pytest.mark.parametrize("choices, message", [({"processes": 3}, "4 images for 3 processes"),
                                              ({"pool": 6}, "pools of 6 images for batches of 4")])
def test_what_cannot_be_shared_is_refused(choices: dict[str, int], message: str) -> None:
    with pytest.raises(ParameterError, match=f"(?s){message}.*multiple"):
        batches(**choices)


def test_neighbouring_seeds_share_nothing() -> None:
    seeds = {mixed_seed(s, k, r) for s in range(20) for k in range(-2, 50) for r in range(4)}
    assert len(seeds) == 20 * 52 * 4 and all(0 <= s < 2**62 for s in seeds)
