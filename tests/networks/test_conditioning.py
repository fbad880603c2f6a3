"""Every way in changes the output where it should, can be left out, and starts from what it is built on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import discs
from torch import Tensor, nn

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.errors import DataError, ParameterError
from cmri_lib.generators.base import batch_of, draw
from cmri_lib.generators.flow import FlowMatching, FlowSettings
from cmri_lib.generators.guidance import Guided, guided
from cmri_lib.networks.adapter import ControlledGenerator
from cmri_lib.networks.conditioning.base import UNKNOWN_LABEL, Conditioning, one_hot
from cmri_lib.networks.conditioning.embeddings import CompositeConditioning, drop_fields
from cmri_lib.networks.conditioning.label_map import LabelMap
from cmri_lib.networks.controlnet import Controlled
from cmri_lib.networks.mask_to_image import (ConditionalGenerator, MaskToImageSettings, PatchCritic, TranslationUNet)
from cmri_lib.networks.projection import ProjectionCritic
from cmri_lib.networks.transformer import TokenTransformer, TransformerDenoiser, TransformerSettings
from cmri_lib.networks.unet import Denoiser, UNetSettings
from cmri_lib.networks.vae import Decoder, Encoder, VAESettings
from cmri_lib.systems import conditions
from cmri_lib.systems.conditions import Condition
from cmri_lib.training.fingerprint import model_digest

SMALL = UNetSettings((8, 16), head_channels=8)
PATCHED = UNetSettings((8, 16), head_channels=8, patch=2)
TINY = MaskToImageSettings(generator=(8, 16, 16), critic=(8, 16))
VOCABULARY = Vocabulary({"vendor": ("GE", "Philips", "Siemens"), "disease": ("DCM", "NOR"), "phase": ("ED", "ES"),
                         "level": ("apical", "basal", "mid")})


def made(condition: Condition) -> Conditioning:
    return condition(VOCABULARY)


def mask(*arguments, **options) -> LabelMap:
    return made(conditions.mask(*arguments, **options))


def categories(*columns: str) -> Conditioning:
    return made(conditions.categories(*columns))


def numbers(*columns: str, **options) -> Conditioning:
    return made(conditions.numbers(*columns, **options))


def prompt(*columns: str) -> Conditioning:
    return made(conditions.prompt(*columns))


METHODS = {
    "concat": lambda: mask(), "spade": lambda: mask(method="spade"), "cavity": lambda: mask("cavity"),
    "categories": lambda: categories("vendor", "phase"), "numbers": lambda: numbers("lvef", "age"),
    "prompt": lambda: prompt("vendor", "phase"),
    "composite": lambda: CompositeConditioning(mask(), categories("vendor"), prompt("phase"), dropout=0.3),
}


#: What each network takes: "concat", "spade", "categories", "prompt" of `METHODS` are planes, maps, a vector, tokens.
TAKES = {
    "Denoiser": (lambda c: Denoiser(SMALL, c), {"concat", "spade", "categories", "prompt"}),
    "TransformerDenoiser": (lambda c: TransformerDenoiser(TransformerSettings(16, 2, 2), c), {"concat"}),
    "TokenTransformer": (lambda c: TokenTransformer(TransformerSettings(16, 2, 2), 5, c), {"categories"}),
    "Encoder": (lambda c: Encoder(VAESettings((8, 8)), c), {"concat"}),
    "Decoder": (lambda c: Decoder(VAESettings((8, 8)), c), {"concat"}),
    "ConditionalGenerator": (lambda c: ConditionalGenerator(4, 32, TINY, c), {"concat", "spade", "categories"}),
    "TranslationUNet": (lambda c: TranslationUNet(4, 32, TINY, c), {"concat"}),
    "PatchCritic": (lambda c: PatchCritic(TINY, c), {"concat", "spade", "categories"}),
    "ProjectionCritic": (lambda c: ProjectionCritic(32, TINY, c), {"categories"}),
    "a ControlNet's hint": (lambda c: Controlled(SMALL, Conditioning(), c), {"concat"}),
    "an adapter's hint": (lambda c: ControlledGenerator(4, 32, TINY, c), {"concat"}),
}


@pytest.mark.parametrize("name", list(TAKES))
def test_no_network_ignores_a_condition_without_a_word(name: str) -> None:
    make, takes = TAKES[name]
    for method in ("concat", "spade", "categories", "prompt"):
        beside = CompositeConditioning(METHODS[min(takes)](), METHODS[method]())
        if method in takes:
            assert make(METHODS[method]()) and make(beside)
            continue
        for condition in (METHODS[method](), beside):
            with pytest.raises(ParameterError, match="hint|conditioning"):
                make(condition)


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter drawn anew, so that no layer of zeros hides what enters behind it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) / math.sqrt(max(1, p[0].numel() if p.dim() > 1 else 9)))
    return network.eval()


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    """Four discs with all that a table can tell."""
    slices = discs(4, 1)
    table = {"vendor": ["Siemens", "GE", "unknown", "Philips"], "disease": "NOR", "phase": ["ED", "ES", "ED", "ES"],
             "age": [30.0, 50.0, 70.0, np.nan], "lvef": [60.0, 20.0, 40.0, 55.0]}
    everything = CompositeConditioning(mask(), categories("vendor", "disease", "phase"), numbers("age", "lvef"))
    return batch_of(slices.with_columns(**table), everything)


def changed(batch: dict[str, Tensor], field: str) -> dict[str, Tensor]:
    """Image 0 is conditioned what image 1 is conditioned; all else is as it was."""
    other = batch[field].clone()
    other[0] = batch[field][1]
    return {**batch, field: other}


@pytest.mark.parametrize("settings", [SMALL, PATCHED], ids=["pixels", "patches"])
@pytest.mark.parametrize("method", METHODS)
def test_each_denoiser_answers_to_its_condition_and_image_by_image(method: str, settings: UNetSettings,
                                                                   batch: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    condition = METHODS[method]()
    network = randomised(Denoiser(settings, condition))
    x, t = torch.randn_like(batch["image"]), torch.full((4,), 0.4)
    before = network(x, t, batch)
    for field in condition.fields:
        after = network(x, t, changed(batch, field))
        assert (after[0] - before[0]).abs().mean() > 1e-4, f"{field} is ignored"
        assert torch.allclose(after[1:], before[1:], atol=1e-5), "one image's condition reached another"
    assert torch.equal(network(x, t, {**batch, "unread": x}), before)


def test_cavity_says_nothing_of_the_other_structures(batch: dict[str, Tensor]) -> None:
    labels = batch["mask"]
    fewer = torch.where(labels == LABELS["LV"], labels, 0)
    whole, cavity = mask("labels"), mask("cavity")
    assert torch.equal(cavity.planes({"mask": labels}), cavity.planes({"mask": fewer}))
    assert not torch.equal(whole.planes({"mask": labels}), whole.planes({"mask": fewer}))
    assert torch.equal(whole.planes({"mask": labels}), LabelMap().planes({"mask": labels}))


def test_one_hot_is_blank_where_nothing_is_known() -> None:
    labels = torch.tensor([[[0, 1], [3, UNKNOWN_LABEL]]], dtype=torch.uint8)
    planes = one_hot(labels, 4)
    assert planes.sum((1,)).tolist() == [[[1, 1], [1, 0]]]
    assert planes[0, :, 1, 0].tolist() == [0, 0, 0, 1]


def test_numbers_are_told_apart_and_unknown_ones_are_zero() -> None:
    condition = numbers("lvef", size=8)
    vectors = condition.vector({"lvef": torch.tensor([-1.0, 0.0, 1.0, math.nan])})
    assert vectors.shape == (4, 8) and torch.equal(vectors[3], torch.zeros(8))
    known = vectors[:3]
    assert torch.allclose(known.square().sum(1), torch.full((3,), 4.0), atol=1e-5)  # sin² + cos² of four frequencies
    assert torch.allclose(known[1], torch.tensor([0.0] * 4 + [1.0] * 4), atol=1e-6)
    # the slowest wave has a quarter period on each side of the centre, so it alone tells −1 from 1
    assert known[0, 0].item() == pytest.approx(-1, abs=1e-5) and known[2, 0].item() == pytest.approx(1, abs=1e-5)


def test_categories_become_codes_and_strange_ones_are_refused() -> None:
    some = discs(2, 1).with_columns(vendor=["GE", "unknown"], age=[70.0, np.nan])
    batch = batch_of(some, CompositeConditioning(categories("vendor"), numbers("age")))
    assert batch["vendor"].tolist() == [1 + VOCABULARY.categories["vendor"].index("GE"), 0]
    assert batch["age"][0].item() == pytest.approx(1) and batch["age"][1].isnan()
    with pytest.raises(DataError, match="Acme"):
        batch_of(some.with_columns(vendor="Acme"), categories("vendor"))
    with pytest.raises(DataError, match="lvef"):
        batch_of(discs(2, 1), numbers("lvef"))
    for wrong in (lambda: categories("colour"), lambda: numbers("vendor"), lambda: mask("lungs"),
                  lambda: CompositeConditioning(prompt("phase"), prompt("vendor"))):
        with pytest.raises(ParameterError):
            wrong()
    with pytest.raises(ParameterError, match=r"\[columns\]: \['phase'\] have no scale(?s:.*)SCALES of cohort.*categories"):
        conditions.numbers("phase")
    with pytest.raises(ParameterError, match=r"\[method\]: 'control'(?s:.*)control=True"):
        conditions.mask(method="control")


def test_a_vocabulary_is_what_occurs_and_a_new_word_elsewhere_changes_no_network() -> None:
    some = discs(4, 1).with_columns(vendor=["GE", "unknown", "other", "Canon"], disease=["NOR", "XYZ", "NOR", "NOR"])
    vocabulary = Vocabulary.of(some)
    assert vocabulary.categories["vendor"] == ("Canon", "GE") and vocabulary.categories["disease"] == ("NOR", "XYZ")
    assert not vocabulary.tissues
    torch.manual_seed(0)
    before = conditions.categories("vendor")(vocabulary)
    torch.manual_seed(0)
    after = conditions.categories("vendor")(Vocabulary.of(some.with_columns(disease=["ABC", "DEF", "GHI", "NOR"])))
    assert model_digest(before) == model_digest(after)
    swapped = conditions.categories("vendor")(Vocabulary({"vendor": ("GE", "Canon")}))
    swapped.load_state_dict(before.state_dict())
    assert model_digest(swapped) != model_digest(before), "codes mean something else, yet it counts as the same network"


def test_conditions_are_dropped_in_training_as_often_as_asked_and_never_later(batch: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    condition = CompositeConditioning(mask(), categories("vendor"), numbers("lvef"), dropout=0.25)
    many = {k: v[:2].repeat(1000, *[1] * (v.dim() - 1)) for k, v in batch.items()}
    seen = condition.apply_dropout(many)
    lost = {"mask": (seen["mask"] == UNKNOWN_LABEL).flatten(1).all(1), "vendor": seen["vendor"] == 0,
            "lvef": seen["lvef"].isnan()}
    for field, gone in lost.items():
        assert gone.float().mean().item() == pytest.approx(0.25, abs=0.04), field
        assert torch.equal(seen[field][~gone], many[field][~gone])
    together = (lost["mask"] & lost["vendor"]).float().mean().item()
    assert together == pytest.approx(0.0625, abs=0.025)  # independently
    assert torch.equal(seen["image"], many["image"])


def test_hidden_conditions_leave_no_trace(batch: dict[str, Tensor]) -> None:
    """Any subset at sampling time: with a field hidden, what stood there cannot matter."""
    condition = CompositeConditioning(mask(), categories("vendor"), numbers("lvef"), dropout=0.2)
    network = randomised(Denoiser(SMALL, condition))
    x, t = torch.randn_like(batch["image"]), torch.full((4,), 0.4)
    for field in condition.fields:
        one, two = (network(x, t, drop_fields(b, [field])) for b in (batch, changed(batch, field)))
        assert torch.equal(one, two)
        assert (one - network(x, t, batch)).abs().mean() > 1e-4


def test_ablated_masks_lose_each_structure_half_of_the_time() -> None:
    torch.manual_seed(0)
    labels = torch.arange(4, dtype=torch.uint8).repeat(2000, 1)[:, None]  # (B, 1, 4): one pixel of each label
    seen = mask(ablated=True).apply_dropout({"mask": labels})["mask"][:, 0]
    shares = (seen == torch.arange(4)).float().mean(0)
    assert shares[0] == 1 and torch.allclose(shares[1:], torch.full((3,), 0.5), atol=0.05)
    assert set(seen[:, 2].tolist()) == {0, 2}  # erased to background, never to another structure
    network = Denoiser(SMALL, mask(ablated=True)).eval()
    assert torch.equal(network.conditioning.planes({"mask": labels}), one_hot(labels, 4))  # nothing is erased later


# --- ControlNet
@pytest.mark.parametrize("settings", [SMALL, PATCHED], ids=["pixels", "patches"])
@pytest.mark.parametrize("conditioned", [Conditioning, lambda: categories("vendor"), lambda: prompt("vendor", "phase")])
def test_fresh_controlnet_equals_its_base_exactly(conditioned, settings: UNetSettings, batch: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    base = randomised(Denoiser(settings, conditioned()))
    network = Controlled(settings, conditioned(), mask())
    network.load_pretrained(base.state_dict())
    x, t = torch.randn_like(batch["image"]), torch.full((4,), 0.7)
    assert torch.equal(network.eval()(x, t, batch), base(x, t, batch))
    randomised(network.copy)
    moved = network(x, t, changed(batch, "mask")) - network(x, t, batch)
    assert moved[0].abs().mean() > 1e-5 and moved[1:].abs().max() < 1e-5
    with pytest.raises(ParameterError, match="power of 2"):
        Controlled(UNetSettings((8, 16), patch=3), conditioned(), mask())


def test_a_patch_lies_where_it_was() -> None:
    """A network that hands its first channels back gives the image back, whatever shares a place."""
    class First(nn.Module):
        def forward(self, x: Tensor, t: Tensor, **given: object) -> Tensor:
            return x[:, :4]

    network, images = Denoiser(PATCHED, mask()), torch.randn(2, 1, 8, 8)
    network.unet = First()
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    assert torch.equal(network(images, torch.zeros(2), {"image": images, "mask": labels}), images)


def test_controlnet_learns_in_its_copy_alone_and_answers_to_the_mask(batch: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    network = Controlled(SMALL, Conditioning(), mask())
    network.load_pretrained(randomised(Denoiser(SMALL, Conditioning())).state_dict())
    flow = FlowMatching(network, mask())
    learning = {id(p) for p in flow.parameter_groups()["model"]}
    assert learning == {id(p) for p in network.copy.parameters()}
    before = {k: v.clone() for k, v in network.base.state_dict().items()}
    optimiser = torch.optim.Adam(flow.parameter_groups()["model"], lr=1e-2)
    for _ in range(5):
        optimiser.zero_grad()
        flow.loss(batch, "model").backward()
        optimiser.step()
    assert all(torch.equal(v, before[k]) for k, v in network.base.state_dict().items())
    x, t = torch.randn_like(batch["image"]), torch.full((4,), 0.4)
    network.eval()
    moved = network(x, t, changed(batch, "mask")) - network(x, t, batch)
    assert moved[0].abs().mean() > 1e-5 and moved[1:].abs().max() < 1e-5


@pytest.mark.parametrize("conditioned", [lambda: CompositeConditioning(mask(), categories("vendor"), dropout=0.5),
                                  lambda: CompositeConditioning(prompt("vendor", "phase"), dropout=0.5)],
                         ids=["mask + vendor", "prompt"])
def test_the_copy_is_told_what_the_base_is_told(conditioned, batch: dict[str, Tensor]) -> None:
    """In training, conditions are hidden once: base and copy see the same ones, and the same as a plain denoiser would."""
    torch.manual_seed(0)
    base = randomised(Denoiser(SMALL, conditioned()))
    network = Controlled(SMALL, conditioned(), mask())
    network.load_pretrained(base.state_dict())
    seen: dict[str, list] = {"copy": [], "base": []}
    for name, part in (("copy", network.copy), ("base", network.base.unet)):
        part.register_forward_pre_hook(lambda _, args, options, name=name: seen[name].append(
            (args[0], options["context"], options["class_labels"])), with_kwargs=True)
    many = {k: v.repeat(4, *[1] * (v.dim() - 1)) for k, v in batch.items()}
    x, t = torch.randn(16, 1, 32, 32), torch.full((16,), 0.4)
    network.train(), base.train()
    assert network.copy.training and not any(m.training for m in network.base.modules())
    outputs = []
    for model in (network, base):
        torch.manual_seed(1)
        outputs.append(model(x, t, many))
    assert torch.equal(*outputs)
    for mine, other in zip(seen["copy"][0], seen["base"][0]):
        assert (mine is None and other is None) or torch.equal(mine, other)
    with torch.no_grad():
        assert torch.equal(network.eval()(x, t, many), base.eval()(x, t, many))
    for part in seen.values():
        assert any(not torch.equal(*pair) for pair in zip(*part) if pair[0] is not None), "nothing was hidden in training"


@pytest.mark.parametrize("shrink", [1, 2])
def test_a_hint_larger_than_the_latents_is_shrunk_to_them(shrink: int, batch: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    base = randomised(Denoiser(SMALL, Conditioning(), channels=4))
    network = Controlled(SMALL, Conditioning(), mask(), channels=4, shrink=shrink)
    network.load_pretrained(base.state_dict())
    x, t = torch.randn(4, 4, 32 >> shrink, 32 >> shrink), torch.full((4,), 0.4)
    before = network.eval()(x, t, batch)
    assert torch.equal(before, base(x, t, batch))
    randomised(network.copy)
    moved = network(x, t, changed(batch, "mask")) - network(x, t, batch)
    assert moved[0].abs().mean() > 1e-5 and moved[1:].abs().max() < 1e-5
    with pytest.raises(ParameterError, match="shrink"):
        Controlled(SMALL, Conditioning(), mask(), shrink=-1)


# --- guidance
def test_guidance_of_one_is_the_conditional_network_and_the_rest_a_straight_line(batch: dict[str, Tensor]) -> None:
    condition = CompositeConditioning(mask(), categories("vendor"), dropout=0.2)
    network = randomised(Denoiser(SMALL, condition))
    x, t = torch.randn_like(batch["image"]), torch.full((4,), 0.4)
    conditioned, free = network(x, t, batch), network(x, t, drop_fields(batch, condition.fields))
    assert torch.equal(Guided(network, condition.fields, 1)(x, t, batch), conditioned)
    assert torch.equal(Guided(network, condition.fields, 0)(x, t, batch), free)
    assert torch.allclose(Guided(network, condition.fields, 3)(x, t, batch), free + 3 * (conditioned - free), atol=1e-5)
    one = Guided(network, ["vendor"], 2)(x, t, batch)
    assert torch.allclose(one, 2 * conditioned - network(x, t, drop_fields(batch, ["vendor"])), atol=1e-5)


def test_guidance_shifts_a_gaussian_as_the_closed_form_says() -> None:
    """Classes N(±m, 1) against their mixture: for a flow whose velocities are exact, guidance moves samples outwards, and a
    scale of 1 gives the class's own mean."""
    m = 1.0

    class Exact(nn.Module):
        """E[x1 − x0 | x_t] for x1 ~ N(c m, 1) with c = ±1 conditioned, or for both classes alike."""

        def forward(self, x: Tensor, t: Tensor, batch: dict) -> Tensor:
            s = t.view(-1, 1)
            variance = s**2 + (1 - s) ** 2

            def velocity(c: Tensor) -> Tensor:
                return c * m + (2 * s - 1) / variance * (x - s * c * m)

            code = batch["phase"].view(-1, 1)
            either = torch.sigmoid(2 * s * m * x / variance)  # posterior of class +1 at x_t
            mixed = either * velocity(torch.ones_like(x)) + (1 - either) * velocity(-torch.ones_like(x))
            return torch.where(code == 0, mixed, velocity(torch.where(code == 1, 1.0, -1.0)))

    flow = FlowMatching(Exact(), categories("phase"), FlowSettings(solver="midpoint", steps=50))
    noise, batch = (torch.randn(4000, 1, generator=torch.Generator().manual_seed(0)),
                    {"phase": torch.ones(4000, dtype=torch.long)})
    means = {}
    for scale in (0, 1, 2):
        with guided(flow, scale) as steered:
            means[scale] = steered.sample(noise, batch).mean().item()
    assert means[0] == pytest.approx(0, abs=0.05) and means[1] == pytest.approx(m, abs=0.05)
    assert means[2] > m + 0.1
    assert isinstance(flow.network, Exact)  # the guide is taken off again
    with pytest.raises(ParameterError, match="fields"), guided(flow, 2, ["mask"]):
        pass


# --- adversarial networks
@pytest.mark.parametrize("method", ["concat", "spade"])
def test_generators_answer_to_mask_vendor_and_noise(method: str, batch: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    condition = CompositeConditioning(mask(method=method), categories("vendor"))
    network = ConditionalGenerator(8, 32, TINY, condition).eval()
    z = torch.randn(4, 8)
    before = network(z, batch)
    assert before.shape == batch["image"].shape and before.abs().max() <= 1
    for field in condition.fields:
        after = network(z, changed(batch, field))
        assert (after[0] - before[0]).abs().mean() > 1e-4 and torch.allclose(after[1:], before[1:], atol=1e-6), field
    assert (network(z.flip(0), batch) - before).abs().mean() > 1e-4


def test_translation_answers_to_the_mask_where_it_changes(batch: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    network = TranslationUNet(4, 32, TINY, mask()).eval()
    z = torch.randn(4, 4)
    before, after = network(z, batch), network(z, changed(batch, "mask"))
    moved = (after - before).abs().mean(1)
    different = changed(batch, "mask")["mask"] != batch["mask"]
    assert moved[0][different[0]].mean() > moved[0][~different[0]].mean() > 0
    assert torch.allclose(after[1:], before[1:], atol=1e-6)


@pytest.mark.parametrize("scales", [1, 2])
def test_critics_judge_patches_with_mask_and_vendor(scales: int, batch: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    condition = CompositeConditioning(mask(), categories("vendor"))
    critic = PatchCritic(MaskToImageSettings((8, 16, 16), (8, 16), scales), condition).eval()
    logits = critic(batch["image"], batch)
    assert logits.shape == (4, 8 * 8 + (4 * 4 if scales == 2 else 0))
    for field in condition.fields:
        assert (critic(batch["image"], changed(batch, field))[0] - logits[0]).abs().mean() > 1e-5, field


def test_projection_adds_the_agreement_of_features_and_words(batch: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    condition = categories("vendor")
    critic = ProjectionCritic(32, TINY, condition)
    asked = changed(batch, "vendor")
    pooled = F.leaky_relu(critic.blocks(critic.first(batch["image"])), 0.2).mean((2, 3))
    conditioned = critic.project(condition.vector(asked)) - critic.project(condition.vector(batch))
    difference = critic(batch["image"], asked) - critic(batch["image"], batch)
    assert torch.allclose(difference, (conditioned * pooled).sum(1), atol=1e-6) and difference[0].abs() > 1e-5
    assert torch.equal(difference[1:], torch.zeros(3))
    for unfit in (mask(), mask(method="spade"), Conditioning()):
        with pytest.raises(ParameterError, match="conditioning"):
            ProjectionCritic(32, TINY, unfit)


def test_drawn_slices_keep_what_was_told() -> None:
    conditions = discs(3, 2).with_columns(vendor="GE")
    conditioned = FlowMatching(Denoiser(SMALL, categories("vendor")), categories("vendor"), FlowSettings(steps=1))
    made = draw(conditioned, conditions, "C")
    assert (made.table["vendor"] == "GE").all() and (made.table["phase"] == "unknown").all() and not made.masks.any()
    assert made.table["patient"].nunique() == len(made)
