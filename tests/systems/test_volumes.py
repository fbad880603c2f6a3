"""C7: shapes and inverses, a first stage that learns, and stacks that come back as slices with masks of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import discs

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.cohort.stacks import as_volumes, resampled
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import DataError, ParameterError, SplitError
from cmri_lib.experiments.training import train_or_load, training_folder
from cmri_lib.experiments.volumes import area_profiles, middle_repeated, through_code
from cmri_lib.generators.stacks import draw_stacks, stack_batch
from cmri_lib.networks.stack_autoencoder import Shuffle, StackAutoencoder, StackSettings, unshuffled, with_labels
from cmri_lib.networks.stack_unet import StackDenoiser
from cmri_lib.networks.unet import UNetSettings
from cmri_lib.reporting import metrics, stack_plots
from cmri_lib.systems.system import Run
from cmri_lib.systems.volumes import STACK_LDM
from cmri_lib.training import TrainSettings, train

PLANES = 8


def cohort() -> Slices:
    some = concatenate([discs(4, 6), discs(2, 6, seed=3, split="validation"), discs(3, 6, seed=5, split="test")])
    return some.with_columns(phase="ED")


def test_shuffling_is_undone_and_keeps_planes() -> None:
    stacks = torch.randn(2, 5, 3, 8, 8)
    small = unshuffled(stacks)
    assert small.shape == (2, 20, 3, 4, 4)
    torch.testing.assert_close(Shuffle()(small), stacks)
    torch.testing.assert_close(unshuffled(stacks[:, :, :1]), small[:, :, :1])


def test_image_and_labels_are_channels() -> None:
    masks = torch.tensor([[[[0, 1], [2, 3]]]], dtype=torch.uint8)
    made = with_labels(torch.full((1, 1, 1, 2, 2), 0.25), masks, 4)
    assert made.shape == (1, 5, 1, 2, 2) and (made[:, 0] == 0.25).all()
    torch.testing.assert_close(made[:, 1:].argmax(1), masks.long())
    assert set(made[:, 1:].unique().tolist()) == {-1.0, 1.0} and (made[:, 1:].sum(1) == -2).all()


def test_codes_have_the_promised_shape_and_scale() -> None:
    first = StackAutoencoder(StackSettings(widths=(8, 16), planes=4, channels=3), 4)
    stacks = torch.randn(2, 5, 4, 16, 16)
    assert first.encode(stacks).shape == (2, *first.latent_shape(16)) == (2, 3, 4, 4, 4)
    assert first.decode(first.encode(stacks)).shape == stacks.shape
    first.mean.fill_(0.5), first.variance.fill_(4.0)
    torch.testing.assert_close(2 * first.encode(stacks) + 0.5, first.posterior(stacks)[0])
    with pytest.raises(DataError, match="stacks of shape"):
        first.encode(stacks[:, :, :3])
    with pytest.raises(ParameterError, match="halved"):
        first.latent_shape(18)
    with pytest.raises(ParameterError, match="widths"):
        StackSettings(widths=())
    with pytest.raises(ParameterError, match="channels"):
        StackDenoiser(UNetSettings((12, 24)), 3)


def test_planes_of_a_code_see_their_neighbours() -> None:
    first = StackAutoencoder(StackSettings(widths=(8,), planes=6), 4)
    for parameter in first.parameters():
        if not parameter.any():  # what starts at zero
            torch.nn.init.normal_(parameter, std=0.1)
    stacks = torch.randn(1, 5, 6, 8, 8, requires_grad=True)
    first.encode(stacks)[:, :, 2].sum().backward()
    reach = stacks.grad.abs().sum((0, 1, 3, 4))
    assert (reach[1:4] > 0).all() and reach[5] == 0


def test_the_first_stage_learns_image_and_mask(tmp_path) -> None:
    data = stack_batch(cohort().where(split="train"), 3, 4)
    first = StackAutoencoder(StackSettings(widths=(8,), planes=3), 4)
    settings = TrainSettings(steps=60, batch=4, optimiser="muon", learning_rate=2e-2, ema=0.8, warmup=5, log_every=10)
    log = train(first, data, settings, tmp_path)
    assert log["loss_model"].iloc[-1] < 0.5 * log["loss_model"].iloc[0]
    with torch.no_grad():
        code, made = first.encode(data["image"]), first.decode(first.encode(data["image"]))
    right = (made[:, 1:].argmax(1) == data["image"][:, 1:].argmax(1)).float().mean()
    assert right > 0.8 and code.shape[1:] == first.latent_shape(32)


def test_only_patients_to_learn_from_are_learnt_from() -> None:
    with pytest.raises(SplitError, match="test"):
        stack_batch(cohort(), PLANES, 4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Study, object]:
    study = open_study("smoke", "phantom")
    section = study.params.volumes
    short = {"steps": 6, "log_every": 2, "batch": 2}
    volumes = replace(section, **{part: replace(getattr(section, part),
                                                training=replace(getattr(section, part).training, **short))
                                  for part in ("autoencoder", "diffusion")})
    study = Study(tmp_path_factory.mktemp("study"), replace(study.params, volumes=volumes))
    return study, train_or_load(study, Run(STACK_LDM), cohort())


def test_a_run_learns_from_stacks_and_is_loaded_again(trained) -> None:
    study, generator = trained
    weights = training_folder(study, Run(STACK_LDM)) / "weights.safetensors"
    written = weights.stat().st_mtime_ns
    again = train_or_load(study, Run(STACK_LDM), cohort())
    assert weights.stat().st_mtime_ns == written
    for one, other in zip(generator.state_dict().values(), again.state_dict().values()):
        torch.testing.assert_close(one, other)
    other_seed = STACK_LDM.build(study.params, Vocabulary.of(cohort()), 1)
    assert not torch.equal(next(other_seed.prior.parameters()), next(generator.prior.parameters()))


def test_drawn_stacks_are_slices_of_patients_of_their_own(trained) -> None:
    _, generator = trained
    conditions = cohort().where(split="test")
    made = draw_stacks(generator, conditions, "C7", seed=4)
    assert len(made) == 3 * PLANES and made.size == 32 and made.masks.max() <= 3
    as_volumes(made, PLANES)
    table = made.table
    assert set(table["source"]) == {"C7"} and table["patient"].nunique() == 3 and (table["split"] == "test").all()
    assert set(table["vendor"]) == set(table["disease"]) == set(table["phase"]) == {"unknown"}
    np.testing.assert_allclose(table["height"], resampled(conditions, PLANES).table["height"])
    assert set(table["level"]) == {"apical", "mid", "basal"}
    # What is drawn depends on the seed and the place alone: neither on the batch, nor on the patients' images or masks.
    dark = replace(conditions, images=-conditions.images, masks=np.zeros_like(conditions.masks))
    np.testing.assert_allclose(draw_stacks(generator, dark, "C7", seed=4, batch=1).images, made.images, atol=1e-4)
    assert not np.allclose(draw_stacks(generator, conditions, "C7", seed=5).images, made.images, atol=1e-4)


def test_stacks_come_back_through_the_code_and_their_middle_is_repeated(trained) -> None:
    _, generator = trained
    stacks = resampled(cohort().where(split="validation"), PLANES)
    back = through_code(generator, stacks)
    assert back.images.shape == stacks.images.shape and back.table.equals(stacks.table)
    middle = middle_repeated(stacks, PLANES)
    images, masks = as_volumes(middle, PLANES)
    assert (images == images[:, :1]).all() and (masks == as_volumes(stacks, PLANES)[1][:, PLANES // 2, None]).all()


def test_areas_are_in_cm2_and_have_a_figure() -> None:
    stacks = resampled(cohort().where(split="test"), PLANES)
    table = area_profiles({"real": stacks}, {"real": stacks.masks}, {"LV": 1, "Myo": 2})
    assert len(table) == 2 * len(stacks) and table["stack"].nunique() == 3
    first = table[(table["stack"] == 0) & (table["structure"] == "LV")]
    np.testing.assert_allclose(first["cm2"], (stacks.masks[:PLANES] == 1).sum((1, 2)) * 0.09)
    figure = stack_plots.area_profiles(pd.concat([table, table.assign(set="another")]))
    assert [axis.get_title() for axis in figure.axes[:2]] == ["real", "another"]
    assert len(figure.axes) == 4 and len(figure.axes[0].lines) == 3 + 1


@pytest.mark.parametrize("metric", ["stack_correlation", "mask_stack_drift_mm", "stack_whole"])
def test_metrics_of_stacks_are_described(metric: str) -> None:
    assert metrics.known(metric) and metrics.describe(metric).axis == "anatomy"
    assert metrics.direction(metric, "higher") == (
        "higher is better" if metric == "stack_whole" else "nearer to real is better")
    assert not metrics.known("stack_colour")
