"""The toy of notebooks 02 to 05: its truth, and that a training is found again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cmri_lib.experiments import toy
from cmri_lib.generators.flow import FlowMatching
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.training import TrainSettings


def test_true_points_score_the_truth() -> None:
    points = toy.eight_gaussians(40_000, torch.Generator().manual_seed(0))
    found = toy.mode_statistics(points)
    assert found["distance"] == pytest.approx(toy.TRUTH["distance"], rel=0.02)
    assert found["rarest"] == pytest.approx(toy.TRUTH["rarest"], abs=0.01) and found["modes found"] == toy.MODES


def test_a_toy_is_trained_once_and_the_seed_decides(tmp_path: Path) -> None:
    points, settings = toy.eight_gaussians(64, torch.Generator().manual_seed(0)), TrainSettings(steps=3, batch=8)

    def trained(folder: str, seed: int) -> torch.Tensor:
        flow = toy.trained(lambda: FlowMatching(toy.Perceptron(timed=True), Conditioning()), points, settings,
                           tmp_path / folder, seed)
        return next(flow.parameters())

    first, written = trained("a", 1), (tmp_path / "a" / "weights.safetensors").stat().st_mtime_ns
    assert torch.equal(first, trained("a", 1)) and (tmp_path / "a" / "weights.safetensors").stat().st_mtime_ns == written
    assert torch.equal(first, trained("b", 1)) and not torch.equal(first, trained("c", 2))
