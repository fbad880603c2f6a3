"""The conditional systems: each trains from its past, draws, and answers to what it is told."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from conftest import discs
from torch import nn

from cmri_lib.cohort.slices import concatenate
from cmri_lib.config.parameters import open_study
from cmri_lib.config.study import Study
from cmri_lib.errors import ParameterError
from cmri_lib.experiments import protocol
from cmri_lib.generators.base import batch_of, draw, training_batch
from cmri_lib.generators.gan import GAN
from cmri_lib.networks.adapter import ControlledGenerator
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.conditioning.label_map import LabelMap
from cmri_lib.networks.mask_to_image import MaskToImageSettings
from cmri_lib.networks.pretrained import adopt
from cmri_lib.networks.unet import Denoiser, UNetSettings
from cmri_lib.systems.conditional import CONDITIONAL, MORE, PLAIN, cell, several
from cmri_lib.systems.unconditional import SYSTEMS
from cmri_lib.training import TrainSettings, loop, train

CELLS = [cell("GAN", "labels", "spade"), cell("GAN", "labels", "control"), cell("GAN", "none", "none"),
         cell("diffusion", "cavity", "concat"), cell("flow", "labels", "control"), cell("flow", "tissues", "spade"),
         cell("flow", "none", "none"), several("flow", "mask + vendor + phase + disease"), several("diffusion", "mask + prompt")]


@pytest.fixture(scope="module")
def slices():
    some = discs(6, 2)
    rng = np.random.default_rng(0)
    table = {"vendor": rng.choice(["Siemens", "GE"], len(some)), "disease": rng.choice(["NOR", "DCM"], len(some)),
             "age": rng.uniform(20, 80, len(some)), "bmi": 25.0,
             "lvef": rng.uniform(20, 70, len(some)), "lvedv": 150.0, "rvedv": 150.0}
    return type(some)(some.images, some.masks, some.table.assign(**table), some.masks)


@pytest.mark.parametrize("system", [PLAIN, *CONDITIONAL.values(), *CELLS], ids=lambda s: s.id)
def test_each_system_trains_draws_and_answers(system, slices, tmp_path) -> None:
    study, _ = open_study("smoke", "phantom")
    generator = system.build(study)
    if system.start is not None:
        adopt(generator, system.start.build(study).state_dict())
    data = generator.prepare(training_batch(slices, generator.conditioning))
    settings = study.settings(f"{system.section}.training", TrainSettings)
    log = train(generator, data, type(settings)(steps=4, batch=4, log_every=2, learning_rate=settings.learning_rate,
                                                optimiser=settings.optimiser), tmp_path)
    assert np.isfinite(log.filter(like="loss_").drop(columns="validation_loss", errors="ignore").to_numpy(float)).all()
    made = draw(generator, slices, system.id)
    assert made.images.std(axis=0).mean() > 0 and (made.masks.any() == bool({"mask", "tissues"} & set(generator.conditioning.fields)))
    noise = torch.randn(4, *generator.noise_shape(32))
    batch = {k: v[:4] for k, v in batch_of(slices, generator.conditioning.fields).items()}
    with torch.no_grad():
        for p in (p for p in generator.parameters() if not p.any()):
            p.normal_(0, 0.05)  # what starts at zero has hardly moved in four steps
    before = generator.sample(noise, batch)
    for field in generator.conditioning.fields:
        other = batch[field].clone()
        other[0] = slices.masks.max() - other[0] if field in ("mask", "tissues") else (other[0] + 1) % 3
        after = generator.sample(noise, {**batch, field: other})
        assert (after[0] - before[0]).abs().mean() > 1e-7, f"{field} is ignored"
        assert (after[1:] - before[1:]).abs().max() < 1e-3, "one image's condition reached another"


@pytest.mark.parametrize("family", ["diffusion", "flow"])
@pytest.mark.parametrize("way", ["concat", "control"])
def test_what_starts_warm_does_at_first_what_its_past_did(family: str, way: str, slices) -> None:
    study, _ = open_study("smoke", "phantom")
    told = cell(family, "labels", way)
    past, generator = told.start.build(study).eval(), told.build(study).eval()
    with torch.no_grad():
        for p in past.parameters():
            p.normal_(0, 0.1)
    adopt(generator, past.state_dict())
    batch = batch_of(slices.take(range(3)))
    x, t = torch.randn_like(batch["image"]), torch.full((3,), 0.3)
    assert torch.allclose(generator.network(x, t, batch), past.network(x, t, {}), atol=1e-5)


def test_fresh_controlnet_on_latents_equals_its_prompted_base(slices) -> None:
    study, _ = open_study("smoke", "phantom")
    told = CONDITIONAL["C9 ControlNet LDM"]
    past, generator = told.start.build(study).eval(), told.build(study).eval()
    assert generator.conditioning.fields == (*past.conditioning.fields, "mask")
    with torch.no_grad():
        for p in past.parameters():
            p.normal_(0, 0.1)
    adopt(generator, past.state_dict())
    batch = batch_of(slices.take(range(3)), generator.conditioning.fields)
    noise = torch.randn(3, *generator.noise_shape(32))
    assert torch.equal(generator.sample(noise, batch), past.sample(noise, batch))
    learning = {id(p) for p in generator.players()["model"]}
    assert learning == {id(p) for p in generator.prior.network.copy.parameters()}


def controlled(slices) -> tuple[GAN, GAN, dict]:
    """An untold GAN with weights and batch statistics of its own, the fresh controlled one on top of it, and a batch."""
    study, _ = open_study("smoke", "phantom")
    told = cell("GAN", "labels", "control")
    torch.manual_seed(0)
    past, generator = told.start.build(study).eval(), told.build(study).eval()
    with torch.no_grad():
        for p in past.parameters():
            p.normal_(0, 0.2)
        for name, buffer in past.generator.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 2)
    adopt(generator, past.state_dict())
    return past, generator, batch_of(slices.take(range(4)))


def test_fresh_controlled_gan_equals_its_base_whatever_the_mask(slices) -> None:
    past, generator, batch = controlled(slices)
    noise = torch.randn(4, *generator.noise_shape(32))
    for mode in (False, True):  # in training as well: its base stays in eval mode
        generator.train(mode)
        for _ in range(3):
            masks = torch.randint(0, 4, batch["mask"].shape, dtype=torch.uint8)
            assert torch.equal(generator.sample(noise, {"mask": masks}), past.sample(noise, {}))
    weights = {k: v for k, v in past.critic.state_dict().items() if k.endswith("original")}
    mine = generator.critic.state_dict()
    assert all(torch.equal(mine[k][:, :v.shape[1]], v) and not mine[k][:, v.shape[1]:].any() for k, v in weights.items())


def test_gradients_reach_the_branch_and_one_step_tells_masks_apart(slices) -> None:
    _, generator, batch = controlled(slices)
    noise = torch.randn(4, *generator.noise_shape(32))
    other = {"mask": batch["mask"].clone()}
    other["mask"][0] = 3 - other["mask"][0]
    assert torch.equal(generator.sample(noise, batch), generator.sample(noise, other))
    network = generator.generator
    optimiser = torch.optim.Adam(network.branch.parameters(), lr=1e-2)
    generator.train()
    for step in range(2):
        optimiser.zero_grad()
        generator.loss(batch, "generator").backward()
        # Behind a layer of zeros no slope is left; it comes as soon as the layer has moved.
        met = network.branch if step else network.branch.zeros
        assert all(p.grad is not None and p.grad.any() for p in met.parameters())
        assert all(p.grad is None for p in network.base.parameters())
        optimiser.step()
        generator.eval()
        moved = generator.sample(noise, other) - generator.sample(noise, batch)
        assert moved[0].abs().mean() > 1e-4, "the mask is ignored"
        assert moved[1:].abs().max() < 1e-5, "one image's mask reached another"
        generator.train()


def test_training_leaves_the_base_of_a_controlled_gan_as_it_was(slices, tmp_path) -> None:
    past, generator, _ = controlled(slices)
    before = {k: v.clone() for k, v in generator.generator.branch.state_dict().items()}
    critic = {k: v.clone() for k, v in generator.critic.state_dict().items()}
    data = training_batch(slices, generator.conditioning)
    train(generator, data, TrainSettings(steps=4, batch=4, log_every=2, weight_decay=0.1), tmp_path)
    base, branch = generator.generator.base.state_dict(), generator.generator.branch.state_dict()
    assert any("running" in k for k in base) and all(torch.equal(v, base[k]) for k, v in past.generator.state_dict().items())
    assert all(not torch.equal(v, branch[k]) for k, v in before.items())
    assert any(not torch.equal(v, critic[k]) for k, v in generator.critic.state_dict().items())


def test_a_controlled_gan_needs_planes() -> None:
    with pytest.raises(ParameterError, match="planes"):
        ControlledGenerator(8, 32, MaskToImageSettings((8, 16), (8,)), LabelMap(way="spade"))


@pytest.mark.parametrize("family", ["GAN", "diffusion", "flow"])
def test_the_untold_cell_goes_on_from_its_past(family: str) -> None:
    study, _ = open_study("smoke", "phantom")
    untold, told = cell(family, "none", "none"), cell(family, "labels", "concat")
    assert (untold.id, untold.conditioning) == (f"{family} none", "none")
    assert (untold.start, untold.section) == (told.start, told.section)
    past, generator = untold.start.build(study), untold.build(study)
    assert generator.conditioning.fields == ()
    adopt(generator, past.state_dict())
    assert all(torch.equal(v, past.state_dict()[k]) for k, v in generator.state_dict().items())


def quick(study: Study, root) -> Study:
    """The same study elsewhere, every training of which takes two steps."""
    def shorten(values: dict) -> dict:
        short = {k: shorten(v) if isinstance(v, dict) else v for k, v in values.items()}
        return short | {"steps": 2, "batch": 4, "log_every": 1} if "learning_rate" in values else short
    return Study(root, study.profile, study.dataset, study.seed, shorten(deepcopy(study.values)))


def test_first_stages_are_trained_once_and_lie_where_all_who_share_them_look(slices, tmp_path, monkeypatch) -> None:
    study = quick(open_study("smoke", "phantom")[0], tmp_path)
    unseen = discs(2, 2, seed=3, split="validation").with_columns(vendor="GE", disease="NOR", age=50.0, bmi=25.0)
    cohort = concatenate([type(slices)(slices.images, slices.masks, slices.table), unseen])
    trained: list = []
    begin = loop._Run

    def begin_and_note(model, data, settings, folder, *more):
        trained.append(folder.relative_to(study.work("")).as_posix())
        return begin(model, data, settings, folder, *more)

    monkeypatch.setattr(loop, "_Run", begin_and_note)
    untold = protocol.trained(study, SYSTEMS["U7 LDM-KL"], cohort)
    for name in ("C15 class-conditioned LDM", "C9 ControlNet LDM", "C14 factorised diffusion"):
        system = CONDITIONAL[name]
        generator = protocol.trained(study, system, cohort)
        if system.first_stage == "latent.kl":
            shared = untold.autoencoder.state_dict()
            assert all(torch.equal(v, shared[k]) for k, v in generator.autoencoder.state_dict().items())
        log = protocol.first_stage_folder(study, system) / "log.csv"
        assert log.exists() and protocol.first_stage_seconds(study, system) > 0
    assert trained == ["latent/kl", "latent/u7-ldm-kl", "conditional/classes_kl", "conditional/c15-class-conditioned-ldm", "conditional/c9-prompt-ldm",
                       "conditional/c9-controlnet-ldm", "conditional/domain_vae", "diffusion/u6-ddpm",
                       "conditional/c14-factorised-diffusion"]
    protocol.trained(study, CONDITIONAL["C14 factorised diffusion"], cohort)
    assert len(trained) == 9, "what is on disk was trained again"
    assert protocol.first_stage_folder(study, SYSTEMS["U9 MaskGIT"], 4) == study.work("latent") / "vq-4"


def test_weights_that_do_not_fit_are_refused() -> None:
    small, large = (Denoiser(UNetSettings(c, head_channels=8), Conditioning()) for c in ((8, 16), (16, 16)))
    with pytest.raises(ParameterError, match="does not fit"):
        adopt(large, small.state_dict())
    with pytest.raises(ParameterError, match="no layer in common"):
        adopt(nn.Linear(2, 2), small.state_dict())
    wide = Denoiser(UNetSettings((8, 16), head_channels=8), LabelMap())
    adopt(wide, small.state_dict())
    first = wide.state_dict()["unet.conv_in.conv.weight"]
    assert torch.equal(first[:, :1], small.state_dict()["unet.conv_in.conv.weight"]) and not first[:, 1:].any()
    for wrong in (("GAN", "labels", "none"), ("flow", "none", "concat"), ("VAE", "labels", "concat"),
                  ("VAE", "none", "none"), ("flow", "lungs", "concat")):
        with pytest.raises(ParameterError, match="exists"):
            cell(*wrong)
    assert set(MORE) and all(several("flow", extra).start is not None for extra in MORE)
