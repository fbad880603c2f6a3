"""The conditional systems: each trains from its pretrained network, draws, and responds to its conditions."""

from __future__ import annotations

import ast
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import discs
from torch import nn

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import Study, open_study
from cmri_lib.errors import ParameterError
from cmri_lib.experiments.training import first_stage_folder, first_stage_seconds, train_or_load
from cmri_lib.generators.base import Generator, batch_of, draw, training_batch
from cmri_lib.generators.gan import GAN
from cmri_lib.networks.adapter import ControlledGenerator
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.conditioning.label_map import LabelMap
from cmri_lib.networks.mask_to_image import MaskToImageSettings
from cmri_lib.networks.pretrained import load_pretrained
from cmri_lib.networks.unet import Denoiser, UNetSettings
from cmri_lib.systems import register
from cmri_lib.systems.ablation import CONDITION_SETS, PRETRAINED, ablation_system, condition_set_system
from cmri_lib.systems.conditional import CONDITIONAL
from cmri_lib.systems.register import SYSTEMS
from cmri_lib.systems.system import Run, System
from cmri_lib.systems.unconditional import KL
from cmri_lib.training import TrainSettings, loop, train
from cmri_lib.training.checkpoint import halved

ABLATION = [ablation_system("GAN", "labels", "spade"), ablation_system("GAN", "labels", "control"),
            ablation_system("GAN", "none", "none"), ablation_system("diffusion", "cavity", "concat"),
            ablation_system("flow", "labels", "control"), ablation_system("flow", "tissues", "spade"),
            ablation_system("flow", "none", "none"), condition_set_system("flow", "mask + vendor + phase + disease"),
            condition_set_system("diffusion", "mask + prompt")]


def test_no_two_entries_have_one_id() -> None:
    # In a dictionary the second would silently take the place of the first.
    folder = Path(register.__file__).parent
    calls = [node for file in sorted(folder.glob("*.py")) for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
             if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "System" and node.args]
    ids = [node.args[0].value for node in calls if isinstance(node.args[0], ast.Constant)]
    assert len(ids) > 20 and len(ids) == len(set(ids)), [name for name in ids if ids.count(name) > 1]


@pytest.fixture(scope="module")
def slices() -> Slices:
    some = discs(6, 2)
    rng = np.random.default_rng(0)
    table = {"vendor": rng.choice(["Siemens", "GE"], len(some)), "disease": rng.choice(["NOR", "DCM"], len(some)),
             "age": rng.uniform(20, 80, len(some)), "bmi": 25.0,
             "lvef": rng.uniform(20, 70, len(some)), "lvedv": 150.0, "rvedv": 150.0}
    return type(some)(some.images, some.masks, some.table.assign(**table), some.masks)


def build(system: System, slices: Slices, seed: int = 0) -> Generator:
    """The untrained generator of the smoke profile."""
    return system.build(open_study("smoke", "phantom").params, Vocabulary.of(slices), seed)


@pytest.mark.parametrize("system", [PRETRAINED["GAN"], *CONDITIONAL.values(), *ABLATION], ids=lambda s: s.id)
def test_each_system_trains_draws_and_answers(system, slices, tmp_path) -> None:
    generator = build(system, slices)
    if system.pretrained is not None:
        load_pretrained(generator, build(system.pretrained, slices).state_dict())
    data = generator.prepare(training_batch(slices, generator.conditioning))
    settings = replace(system.training(open_study("smoke", "phantom").params), steps=4, batch=4, log_every=2)
    log = train(generator, data, settings, tmp_path)
    assert np.isfinite(log.filter(like="loss_").drop(columns="validation_loss", errors="ignore").to_numpy(float)).all()
    made = draw(generator, slices, system.id)
    assert (made.images.std(axis=0).mean() > 0
            and (made.masks.any() == bool({"mask", "tissues"} & set(generator.conditioning.fields))))
    noise = torch.randn(4, *generator.noise_shape(32))
    batch = {k: v[:4] for k, v in batch_of(slices, generator.conditioning).items()}
    with torch.no_grad():
        for p in (p for p in generator.parameters() if not p.any()):
            p.normal_(0, 0.05)  # what starts at zero has hardly moved in four steps
    before = generator.sample(noise, batch)
    for field in generator.conditioning.fields:
        other = batch[field].clone()
        other[0] = slices.masks.max() - other[0] if field in ("mask", "tissues") else (other[0] + 1) % 3
        after = generator.sample(noise, {**batch, field: other})
        assert (after[0] - before[0]).abs().mean() > 1e-7, f"{field} is ignored"
        assert (after[1:] - before[1:]).abs().max() < 1e-7, "one image's condition reached another"


@pytest.mark.parametrize("family", ["diffusion", "flow"])
@pytest.mark.parametrize("method", ["concat", "spade", "control"])
def test_a_pretrained_system_starts_as_the_network_it_is_loaded_from(family: str, method: str, slices) -> None:
    system = ablation_system(family, "labels", method)
    past, generator = build(system.pretrained, slices).eval(), build(system, slices).eval()
    with torch.no_grad():
        for p in past.parameters():
            p.normal_(0, 0.1)
    load_pretrained(generator, past.state_dict())
    batch = batch_of(slices.take(range(3)), LabelMap())
    x, t = torch.randn_like(batch["image"]), torch.full((3,), 0.3)
    assert torch.allclose(generator.network(x, t, batch), past.network(x, t, {}), atol=1e-5)


@pytest.mark.parametrize("method", ["concat", "spade"])
def test_a_pretrained_gan_starts_as_the_one_it_is_loaded_from(method: str, slices) -> None:
    system = ablation_system("GAN", "labels", method)
    past, gan = build(system.pretrained, slices), build(system, slices)
    with torch.no_grad():
        for values in past.state_dict().values():
            if values.is_floating_point():
                values.uniform_(0.1, 0.3)  # variances among them
    load_pretrained(gan, past.state_dict())
    z, batch = torch.randn(3, *gan.noise_shape(32)), batch_of(slices.take(range(3)), LabelMap())
    drawn = [g.eval().sample(z, batch) for g in (past, gan)]
    assert drawn[0].std() > 1e-3 and torch.allclose(*drawn, atol=1e-5)


def test_fresh_controlnet_on_latents_equals_its_prompted_base(slices) -> None:
    system = CONDITIONAL["C9 ControlNet LDM"]
    past, generator = build(system.pretrained, slices).eval(), build(system, slices).eval()
    assert generator.conditioning.fields == (*past.conditioning.fields, "mask")
    with torch.no_grad():
        for p in past.parameters():
            p.normal_(0, 0.1)
    load_pretrained(generator, past.state_dict())
    batch = batch_of(slices.take(range(3)), generator.conditioning)
    noise = torch.randn(3, *generator.noise_shape(32))
    assert torch.equal(generator.sample(noise, batch), past.sample(noise, batch))
    learning = {id(p) for p in generator.parameter_groups()["model"]}
    assert learning == {id(p) for p in generator.prior.network.copy.parameters()}


def controlled(slices) -> tuple[GAN, GAN, dict]:
    """An unconditional GAN with weights and batch statistics of its own, the fresh controlled one on it, and a batch."""
    system = ablation_system("GAN", "labels", "control")
    past, generator = build(system.pretrained, slices).eval(), build(system, slices).eval()
    with torch.no_grad():
        for p in past.parameters():
            p.normal_(0, 0.2)
        for name, buffer in past.generator.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 2)
    load_pretrained(generator, past.state_dict())
    return past, generator, batch_of(slices.take(range(4)), LabelMap())


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
    kept = halved(past.generator.state_dict())  # at its end a training rounds all its weights
    assert any("running" in k for k in base) and all(torch.equal(v.to(base[k].dtype), base[k]) for k, v in kept.items())
    assert all(not torch.equal(v, branch[k]) for k, v in before.items())
    assert any(not torch.equal(v, critic[k]) for k, v in generator.critic.state_dict().items())


def test_a_controlled_gan_needs_planes() -> None:
    with pytest.raises(ParameterError, match="planes"):
        ControlledGenerator(8, 32, MaskToImageSettings((8, 16), (8,)), LabelMap(method="spade"))


@pytest.mark.parametrize("family", ["GAN", "diffusion", "flow"])
def test_the_unconditional_system_of_the_ablation_continues_the_pretrained_one(family: str, slices) -> None:
    params = open_study("smoke", "phantom").params
    without, with_mask = ablation_system(family, "none", "none"), ablation_system(family, "labels", "concat")
    assert (without.id, without.conditioning) == (f"{family} none", "none")
    assert without.pretrained is with_mask.pretrained and without.training(params) == with_mask.training(params)
    past, generator = build(without.pretrained, slices), build(without, slices)
    assert generator.conditioning.fields == ()
    load_pretrained(generator, past.state_dict())
    assert all(torch.equal(v, past.state_dict()[k]) for k, v in generator.state_dict().items())


def quick(study: Study, root: Path) -> Study:
    """The same study elsewhere, every training of which takes two steps."""
    def shorten(value):
        if isinstance(value, TrainSettings):
            return replace(value, steps=2, batch=4, log_every=1)
        if is_dataclass(value):
            return replace(value, **{f.name: shorten(getattr(value, f.name)) for f in fields(value)})
        return value
    return Study(root, shorten(study.params))


def test_first_stages_are_trained_once_and_lie_where_all_who_share_them_look(slices, tmp_path, monkeypatch) -> None:
    study = quick(open_study("smoke", "phantom"), tmp_path)
    unseen = discs(2, 2, seed=3, split="validation").with_columns(vendor="GE", disease="NOR", age=50.0, bmi=25.0)
    cohort = concatenate([type(slices)(slices.images, slices.masks, slices.table), unseen])
    trained: list = []
    begin = loop.Training

    def begin_and_note(model, *, folder, **more):
        trained.append(folder.relative_to(study.work("")).as_posix())
        return begin(model, folder=folder, **more)

    monkeypatch.setattr(loop, "Training", begin_and_note)
    unconditional = train_or_load(study, Run(SYSTEMS["U7 LDM-KL"]), cohort)
    for name in ("C15 class-conditioned LDM", "C9 ControlNet LDM", "C14 factorised diffusion"):
        run = Run(CONDITIONAL[name])
        generator = train_or_load(study, run, cohort)
        if run.system.first_stage is KL:
            shared = unconditional.autoencoder.state_dict()
            assert all(torch.equal(v, shared[k]) for k, v in generator.autoencoder.state_dict().items())
        assert (first_stage_folder(study, run) / "log.csv").exists() and first_stage_seconds(study, run) > 0
    assert trained == ["latent/kl", "latent/u7-ldm-kl", "conditional/classes-kl", "conditional/c15-class-conditioned-ldm",
                       "conditional/c9-prompt-ldm", "conditional/c9-controlnet-ldm", "conditional/domain-vae",
                       "diffusion/u6-ddpm", "conditional/c14-factorised-diffusion"]
    train_or_load(study, Run(CONDITIONAL["C14 factorised diffusion"]), cohort)
    assert len(trained) == 9, "what is on disk was trained again"


def test_weights_that_do_not_fit_are_refused() -> None:
    small, large = (Denoiser(UNetSettings(c, head_channels=8), Conditioning()) for c in ((8, 16), (16, 16)))
    with pytest.raises(ParameterError, match="does not fit"):
        load_pretrained(large, small.state_dict())
    with pytest.raises(ParameterError, match="no layer in common"):
        load_pretrained(nn.Linear(2, 2), small.state_dict())
    wide = Denoiser(UNetSettings((8, 16), head_channels=8), LabelMap())
    load_pretrained(wide, small.state_dict())
    first = wide.state_dict()["unet.conv_in.conv.weight"]
    assert torch.equal(first[:, :1], small.state_dict()["unet.conv_in.conv.weight"]) and not first[:, 1:].any()
    for wrong in (("GAN", "labels", "none"), ("flow", "none", "concat"), ("VAE", "labels", "concat"),
                  ("VAE", "none", "none"), ("flow", "lungs", "concat")):
        with pytest.raises(ParameterError, match="exists"):
            ablation_system(*wrong)
    assert all(condition_set_system("flow", extra).pretrained is PRETRAINED["flow"] for extra in CONDITION_SETS)
