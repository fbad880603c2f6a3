"""Features of a ResNet-50 against its definition in plain tensor operations, from the tensors of the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import discs
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, interpolate, max_pool2d

from cmri_lib.errors import DataError
from cmri_lib.measures.fidelity.textbook import textbook
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.measures.instruments.published_features import IMAGENET, PublishedFeatures, resnet50
from cmri_lib.measures.statistics.comparison import compare


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, running statistics and a classifier too, in a file with torchvision's names."""
    torch.manual_seed(0)
    state = {k: 1 + 0.2 * torch.rand_like(v) if k.endswith("running_var") else v for k, v in resnet50().state_dict().items()}
    file = tmp_path_factory.mktemp("weights") / "resnet50.safetensors"
    save_file({**state, "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, file)
    return file


def by_hand(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """He et al. 2016, table 1, 50 layers; the stride is in the 3 × 3 convolution, as in torchvision."""
    def norm(x: Tensor, name: str) -> Tensor:
        return batch_norm(x, *(state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")))

    x = max_pool2d(norm(conv2d(x, state["conv1.weight"], stride=2, padding=3), "bn1").relu(), 3, 2, 1)
    for layer, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = norm(conv2d(x, state[f"{name}.conv1.weight"]), f"{name}.bn1").relu()
            y = norm(conv2d(y, state[f"{name}.conv2.weight"], stride=stride, padding=1), f"{name}.bn2").relu()
            y = norm(conv2d(y, state[f"{name}.conv3.weight"]), f"{name}.bn3")
            if block == 0:
                x = norm(conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x = (x + y).relu()
    return x.mean((2, 3))


def test_size_is_that_of_a_resnet_50_without_its_classifier() -> None:
    assert sum(p.numel() for p in resnet50().parameters()) == 25_557_032 - 1000 * 2049  # torchvision's, less fc


def test_features_are_those_of_the_definition(weights: Path) -> None:
    images = discs(2, 1).images
    large = interpolate(torch.from_numpy(images), (224, 224), mode="bilinear", antialias=True).clamp(-1, 1)
    mean, spread = (torch.tensor(v)[:, None, None] for v in IMAGENET)
    expected = by_hand(load_file(weights), ((large + 1) / 2 - mean) / spread)
    found = PublishedFeatures(weights)(images)
    assert found.shape == (2, 2048)
    assert np.allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    assert not np.allclose(found, PublishedFeatures(weights, "symmetric")(images), rtol=1e-2)


def test_textbook_rows_are_measured_in_that_space(weights: Path) -> None:
    real = discs(7, 1, split="validation")
    rows = compare(real, discs(7, 1, seed=5), textbook(Cached(PublishedFeatures(weights))), resamples=10)
    assert {"kid_textbook_published", "recall_textbook_published"} <= {row["metric"] for row in rows}


def test_other_files_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="instruments.published.weights"):
        PublishedFeatures(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(DataError, match="safetensors"):
        PublishedFeatures(tmp_path / "text.safetensors")
    save_file({k: v for k, v in load_file(weights).items() if "layer4" not in k}, tmp_path / "part.safetensors")
    with pytest.raises(DataError, match="no weights of a ResNet-50"):
        PublishedFeatures(tmp_path / "part.safetensors")
