"""What tells two trainings apart, and what does not."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from trainables import Line, line_data

from cmri_lib.config.study import open_study
from cmri_lib.systems.conditional import CONDITIONAL
from cmri_lib.training import Augment, TrainSettings
from cmri_lib.training.fingerprint import _syntax, model_digest, training_fingerprint
from stage_dependencies import EVERYTHING


def test_what_spectral_norm_estimates_is_no_part_of_a_network_s_digest() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(spectral_norm(nn.Conv2d(2, 3, 3)), nn.BatchNorm2d(3))
    rounded, trained, counted = deepcopy(model), deepcopy(model), deepcopy(model)
    with torch.no_grad():
        rounded[0].parametrizations.weight[0]._u.mul_(1 + 1e-6)
        rounded[0].parametrizations.weight[0]._v.mul_(1 - 1e-6)
        trained[0].parametrizations.weight.original.mul_(1 + 1e-6)
        counted[1].running_mean.add_(1e-6)
    assert model_digest(rounded) == model_digest(model), "another processor's network counts as another"
    assert model_digest(trained) != model_digest(model) != model_digest(counted), "weights and other buffers count"


def test_every_published_gan_with_spectral_norm_is_the_same_on_any_processor() -> None:
    """Its digest stays where each estimate is moved by what processors differ in."""
    params = open_study("smoke", "phantom").params
    for name in ("C1 Pix2Pix", "C1 Pix2PixHD", "C2 SPADE cGAN", "C3 vendor-style cGAN", "C4 SPADE cGAN"):
        model = CONDITIONAL[name].build(params, EVERYTHING, 0)
        before, moved = model_digest(model), 0
        with torch.no_grad():
            for key, value in model.named_buffers():
                if key.endswith(("._u", "._v")):
                    value.mul_(1 + 1e-6)
                    moved += 1
        assert moved and model_digest(model) == before, name


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


def test_prose_does_not_change_a_fingerprint_and_code_does(tmp_path: Path) -> None:
    sources = ['"""Doc."""\ndef f(x):\n    """Doc."""\n    return x + 1\n', "# why\ndef f(x):\n    return (x + 1)  # so\n",
               "def f(x):\n    return x + 2\n"]
    trees = []
    for i, source in enumerate(sources):
        file = tmp_path / f"{i}.py"
        file.write_text(source)
        trees.append(_syntax(file))
    assert trees[0] == trees[1] != trees[2]
