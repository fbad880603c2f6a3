"""Generators of masks: closed forms for moves, trainings of seconds that draw hearts, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import discs
from scipy.stats import kstest
from torch import Tensor, nn

from cmri_lib.cohort.cardiac_function import with_phenotypes
from cmri_lib.cohort.slices import PHENOTYPES, Slices, concatenate
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import open_study
from cmri_lib.errors import DataError, ParameterError, SplitError
from cmri_lib.experiments.mask_screening import sample_valid_masks
from cmri_lib.generators.base import batch_of, draw, training_batch
from cmri_lib.generators.diffusion import Diffusion, DiffusionSettings
from cmri_lib.generators.disease_shift import disease_direction, shift_to_disease, uniform_ef
from cmri_lib.generators.label_maps import LabelMaps, draw_masks, label_map
from cmri_lib.generators.vae import VAE
from cmri_lib.measures.anatomy.adherence import dice
from cmri_lib.measures.anatomy.mask_overlap import mask_diversity, nearest_dice
from cmri_lib.measures.anatomy.shapes import anatomy_of_masks
from cmri_lib.measures.anatomy.validity import Ranges, validity
from cmri_lib.measures.statistics.comparison import compare
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.conditioning.embeddings import CategoricalEmbedding
from cmri_lib.networks.conditioning.label_map import LabelMap
from cmri_lib.networks.unet import Denoiser, UNetSettings
from cmri_lib.networks.vae import Decoder, Encoder, VAESettings
from cmri_lib.privacy.mask_memory import mask_memory
from cmri_lib.systems.label_maps import LABEL_DIFFUSION, LABEL_MAPS
from cmri_lib.training import TrainSettings, train

SMALL = VAESettings(channels=(16, 16, 32, 32), latent=16)
SIDE = 32
Y, X = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2


def label_vae() -> LabelMaps:
    torch.manual_seed(0)
    conditioning = Conditioning()
    return LabelMaps(VAE(Encoder(SMALL, conditioning, 4), Decoder(SMALL, conditioning, 4), SMALL.latent, conditioning))


def label_diffusion(channels: tuple[int, ...] = (8, 16, 16)) -> LabelMaps:
    torch.manual_seed(0)
    conditioning = CategoricalEmbedding({"level": ("basal", "mid", "apical"), "phase": ("ED", "ES")})
    network = Denoiser(UNetSettings(channels, head_channels=8), conditioning, 4)
    return LabelMaps(Diffusion(network, conditioning, DiffusionSettings(steps=8)))


def rings(radii: np.ndarray, **columns: object) -> Slices:
    """Concentric LV and wall of four pixels, an RV that leans on it, one slice per radius (pixels); own patients."""
    masks = np.zeros((len(radii), SIDE, SIDE), np.uint8)
    for m, r in zip(masks, radii):
        m[np.hypot(Y, X + 7) < r + 1] = 3
        m[np.hypot(Y, X) < r + 4], m[np.hypot(Y, X) < r] = 2, 1
    some = discs(len(radii), 1, size=SIDE)
    return Slices(np.zeros_like(some.images), masks, some.table.assign(**{"level": "mid", "phase": "ED", **columns}))


def scans(fractions: np.ndarray) -> Slices:
    """One scan per ejection fraction (%): two slices of ED, two of ES whose discs are smaller by just so much."""
    parts = []
    for k, ef in enumerate(fractions):
        radii = np.array([12.0, 12.0, *[12 * np.sqrt(1 - ef / 100)] * 2])
        parts.append(rings(radii, patient=f"p{k}", scan=f"p{k}", phase=["ED", "ED", "ES", "ES"], index=[0, 1, 0, 1]))
    return concatenate(parts)


@pytest.mark.parametrize("make", [label_vae, label_diffusion])
def test_planes_go_in_and_masks_come_out(make) -> None:
    generator, slices = make(), discs(3, 4)
    lesson = training_batch(slices, generator.conditioning)
    data = generator.prepare(lesson)
    assert "mask" in generator.conditioning.fields and set(data) == {"image", *generator.prior.conditioning.fields}
    assert data["image"].shape == (12, 4, 32, 32) and set(data["image"].unique().tolist()) == {-1, 1}
    assert (label_map(data["image"]) == slices.masks).all() and (data["image"].sum(1) == -2).all()
    assert generator.noise_shape(32) == ((16,) if make is label_vae else (4, 32, 32))
    assert generator.nfe == (1 if make is label_vae else 8)
    assert generator.parameter_groups().keys() == {"model"} and generator.update_schedule(0, 5) == ("model",)
    generator.loss(data, "model").backward()
    assert all(p.grad is not None for p in generator.parameters())
    noise = torch.randn(12, *generator.noise_shape(32))
    made = generator.eval().sample(noise, lesson)
    assert made.shape == (12, 4, 32, 32)
    other = generator.sample(noise, {**lesson, "mask": torch.zeros_like(lesson["mask"])})
    assert torch.equal(made, other), "the mask to be drawn is looked at"


def test_planes_of_half_the_side_hold_shares_and_lead_back_to_the_mask() -> None:
    masks = torch.from_numpy(discs(4, 3, size=48).masks)
    vocabulary = Vocabulary({"level": ("apical", "basal", "mid"), "phase": ("ED", "ES")})
    generator = LABEL_DIFFUSION.build(open_study("laptop", "phantom").params, vocabulary, seed=0)
    assert generator.shrink == 2 and generator.noise_shape(48) == (4, 24, 24)
    given = {field: torch.ones(len(masks), dtype=torch.long) for field in generator.prior.conditioning.fields}
    small = generator.prepare({"image": masks[:, None].float(), "mask": masks, **given})["image"]
    shares = (small + 1) / 2
    assert small.shape == (12, 4, 24, 24) and torch.allclose(shares.sum(1), torch.ones(12, 24, 24))
    assert torch.isclose(shares[:, 1].sum() * 4, (masks == 1).sum().float())
    generator.prior.sample = lambda noise, batch: small  # a prior that draws its training data
    back = label_map(generator.sample(torch.randn(12, 4, 24, 24), given))
    assert back.shape == masks.shape and all(dice(back == k, masks.numpy() == k) > 0.93 for k in (1, 2, 3))


def test_drawn_masks_are_their_own_patients_and_depend_on_their_noise_only() -> None:
    generator = label_diffusion()
    conditions = with_phenotypes(discs(3, 4)).with_columns(age=60.0)
    base = draw_masks(generator, conditions, "C10", seed=3, batch=12)
    again = draw_masks(generator, conditions, "C10", seed=3, batch=5)
    assert (base.masks == again.masks).mean() > 0.999
    assert (draw_masks(generator, conditions, "C10", seed=4).masks != base.masks).any()
    blind = Slices(conditions.images, np.zeros_like(conditions.masks), conditions.table)
    assert (draw_masks(generator, blind, "C10", seed=3, batch=12).masks == base.masks).all()
    assert not base.images.any() and (base.table["source"] == "C10").all() and base.table["patient"].nunique() == 12
    kept, lost = ["level", "phase", "height", "index"], ["disease", "vendor"]
    assert base.table[kept].equals(conditions.table[kept]) and (base.table[lost] == "unknown").all(axis=None)
    assert base.table[["age", *PHENOTYPES]].isna().all(axis=None)
    assert (draw_masks(label_vae(), conditions, "C4").table["level"] == "unknown").all()
    with pytest.raises(DataError, match="images"):
        draw(generator, conditions, "C10")


def test_learns_rings_moves_them_and_screens_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    small, large = rng.uniform(4, 6, 40), rng.uniform(6.5, 8.5, 40)
    seen = concatenate([rings(small, disease="NOR"), rings(large, disease="DCM")])
    seen = seen.with_columns(patient=[f"p{i}" for i in range(80)], level=["mid", "basal"] * 40)
    generator = label_vae()
    train(generator, generator.prepare(training_batch(seen, generator.conditioning)),
          TrainSettings(steps=100, batch=16, optimiser="muon", learning_rate=8e-3, ema=0.95), tmp_path)
    unseen = rings(rng.uniform(4.5, 8, 16), split="validation", disease="NOR", lvef=50.0)
    direction = disease_direction(generator, seen, "NOR", "DCM")
    same = shift_to_disease(generator, unseen, direction, 0.0)
    batch = generator.prepare(batch_of(unseen, LabelMap()))
    assert (same.masks == label_map(generator.prior.reconstruct(batch["image"], batch))).all()
    assert min(dice(same.masks == k, unseen.masks == k) for k in (1, 2, 3)) > 0.8
    assert (same.table["disease"] == "NOR").all() and (same.patients == unseen.patients).all()
    assert "lvef" not in same.table, "the ejection fraction of another mask"

    def radius(some: Slices) -> np.ndarray:
        return np.sqrt((some.masks == 1).sum((1, 2)) / np.pi)

    start = rings(np.full(8, 5.0))
    grown = [radius(shift_to_disease(generator, start, direction, severity)).mean() for severity in (-0.5, 0, 0.5, 1.0)]
    assert (np.diff(grown) > 0.2).all(), "a larger severity is a larger cavity"
    assert grown[3] - grown[1] == pytest.approx(large.mean() - small.mean(), rel=0.35)
    ill = shift_to_disease(generator, start, direction, 1.0)
    assert (ill.table["disease"] == "DCM").all() and (ill.table["severity"] == 1).all()

    drawn = draw_masks(generator, seen, "C4")
    assert validity(drawn.masks, drawn.table, Ranges.of(seen))["valid"].mean() > 0.6
    assert radius(drawn).std() > 0.5 * radius(seen).std(), "all masks alike"
    strict = Ranges.of(seen.where(disease="NOR"))  # a screen that about half of the masks fail
    hearts, passed = sample_valid_masks(generator, seen, "C4", strict), validity(drawn.masks, drawn.table, strict)["valid"]
    assert 0.2 < passed.mean() < 0.8 and validity(hearts.masks, hearts.table, strict)["valid"].all()
    assert passed.sum() < len(hearts) <= len(seen) and hearts.table["patient"].is_monotonic_increasing
    assert (hearts.masks[hearts.table["draws"] == 1] == drawn.masks[passed]).all(), "what passed was drawn again"
    given = sample_valid_masks(generator, seen, "C4", strict, first=drawn)
    assert (given.masks == hearts.masks).all() and given.table.equals(hearts.table), "the first draw counts as the first"
    with pytest.raises(ParameterError, match="first"):
        sample_valid_masks(generator, seen, "C4", strict, first=drawn.take(range(3)))


class OneNumber(nn.Module):
    """Encoder and decoder in one: the code is the mean of plane 1, decoding paints it everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))  # a generator is where its weights are

    def forward(self, x: Tensor, batch: dict) -> object:
        if x.dim() == 2:
            return x[:, :, None, None].expand(-1, 4, SIDE, SIDE)
        return x[:, 1].mean((1, 2))[:, None], torch.zeros(len(x), 1)


def test_direction_is_the_mean_over_levels_of_differences_of_means_phase_by_phase() -> None:
    generator = LabelMaps(VAE(OneNumber(), OneNumber(), 1, Conditioning()))
    level = ["mid"] * 3 + ["apical"] * 3
    slices = rings(np.array([5.0, 6, 8, 2, 3, 3]), level=level, disease=["NOR", "DCM", "DCM", "NOR", "NOR", "DCM"])
    code = 2 * (slices.masks == 1).mean((1, 2)) - 1
    expected = ((code[1] + code[2]) / 2 - code[0] + code[5] - (code[3] + code[4]) / 2) / 2
    direction = disease_direction(generator, slices, "NOR", "DCM")
    assert {phase: step.item() for phase, step in direction.steps.items()} == pytest.approx({"ED": expected}, rel=1e-5)
    extra = concatenate([slices, rings(np.array([9.0]), level="basal", disease="DCM")])
    assert disease_direction(generator, extra, "NOR", "DCM").steps["ED"].item() == pytest.approx(expected, rel=1e-5)
    systole = rings(np.array([3.0, 7.0]), phase="ES", disease=["NOR", "DCM"])
    both = disease_direction(generator, concatenate([slices, systole]), "NOR", "DCM")
    wider = 2 * ((systole.masks == 1).mean((1, 2)) @ [-1, 1])
    assert (both.steps["ED"].item() == pytest.approx(expected, rel=1e-5)
            and both.steps["ES"].item() == pytest.approx(wider, rel=1e-5))
    with pytest.raises(DataError, match="phase"):
        shift_to_disease(generator, systole, direction, 1.0)
    with pytest.raises(DataError, match="HCM"):
        disease_direction(generator, slices, "NOR", "HCM")
    with pytest.raises(SplitError, match="test"):
        disease_direction(generator, slices.with_columns(split="test"), "NOR", "DCM")


def test_diffusion_answers_to_level_and_phase(tmp_path: Path) -> None:
    large, little = rings(np.full(16, 8.0), level="basal"), rings(np.full(16, 3.0), level="apical")
    seen, generator = concatenate([large, little]), label_diffusion()
    train(generator, generator.prepare(training_batch(seen, generator.conditioning)),
          TrainSettings(steps=100, batch=8, optimiser="muon", learning_rate=8e-3, ema=0.95), tmp_path)
    drawn = draw_masks(generator, seen, "C10", seed=1)
    area = (drawn.masks == 1).sum((1, 2))
    assert area[:16].mean() > 2 * area[16:].mean(), "level is ignored"
    asked, other = (np.mean([dice(drawn.masks[i] == k, seen.masks[j] == k) for i in range(32) for k in (1, 2, 3)
                             for j in [(i + shift) % 32]]) for shift in (0, 16))
    assert asked > 0.6 and asked > other + 0.2, "a hundred steps of a tiny network bring 0.75"


def test_ejection_fractions_become_uniform() -> None:
    rng = np.random.default_rng(0)
    cohort = scans(np.clip(np.concatenate([rng.normal(60, 6, 50), rng.uniform(12, 74, 20)]), 8, 80))
    cohort = Slices(cohort.images, cohort.masks, cohort.table, cohort.masks)
    drawn = uniform_ef(cohort, 200, seed=0)
    uniform = [kstest(s.table.groupby("scan")["lvef"].first(), "uniform", (10, 65)).statistic
               for s in (with_phenotypes(cohort), drawn)]
    assert uniform[0] > 0.35 and uniform[1] < uniform[0] / 3
    assert len(drawn) == 800 and drawn.table["patient"].nunique() == 200 and drawn.tissues is not None
    row = drawn.table.iloc[41]
    whole = drawn.where(scan=row["scan"]), cohort.where(patient=row["drawn_from"])
    assert (whole[0].masks == whole[1].masks).all() and not drawn.images.any()
    again = with_phenotypes(drawn).table[list(PHENOTYPES)]
    pd.testing.assert_frame_equal(again, drawn.table[list(PHENOTYPES)])
    assert (uniform_ef(cohort, 200, seed=1).table["drawn_from"] != drawn.table["drawn_from"]).any()
    narrow = uniform_ef(cohort, 20, seed=0, low=30, high=40).table["lvef"]
    assert 26 < narrow.min() and narrow.max() < 44
    with pytest.raises(DataError, match="ejection"):
        uniform_ef(cohort.where(phase="ED"), 5, seed=0)
    for wrong in ({"count": 0}, {"count": 5, "low": 60, "high": 20}):
        with pytest.raises(ParameterError, match="count"):
            uniform_ef(cohort, seed=0, **wrong)


def test_copied_masks_are_found_by_their_dice() -> None:
    training, real = discs(12, 4, seed=1), discs(8, 4, seed=2, split="test")
    honest, copies = discs(8, 4, seed=3, split="sample"), training.take(range(0, 48, 2))
    value, index = nearest_dice(real.masks[:5], training.masks)
    brute = [[np.nanmean([dice(a == k, b == k) for k in (1, 2, 3)]) for b in training.masks] for a in real.masks[:5]]
    np.testing.assert_allclose(value, np.max(brute, 1), rtol=1e-6)
    np.testing.assert_array_equal(index, np.argmax(brute, 1))
    measure = mask_memory(training)
    rows = {k: compare(real, s, measure, resamples=50, repeats=10) for k, s in
            (("honest", honest), ("copies", copies.with_columns(patient=[f"s{i}" for i in range(24)])))}
    nearest, near = rows["honest"]
    held_out, made = (np.array([max(np.nanmean([dice(a == k, b == k) for k in (1, 2, 3)]) for b in training.masks)
                                for a in some.masks]) for some in (real, honest))
    assert nearest["value"] == pytest.approx(made.mean(), rel=1e-6)
    assert near["value"] == pytest.approx(np.mean(made > np.quantile(held_out, 0.95)))
    # Discs of other patients are as near to training as those of the test patients are, and in few of them nearer than in all.
    assert nearest["value"] == pytest.approx(nearest["floor"], abs=0.03) and near["low"] <= near["floor"] <= near["high"]
    assert all(row["axis"] == "privacy" and row["ceiling"] == 1 for row in rows["honest"])
    assert [(row["value"], row["low"]) for row in rows["copies"]] == [(1, 1), (1, 1)]
    blank = np.zeros((1, 32, 32), np.uint8)
    assert nearest_dice(blank, training.masks)[0] == 0 and nearest_dice(blank, blank)[0] == 0


def test_masks_that_are_all_alike_are_found_by_the_dice_of_pairs() -> None:
    rng = np.random.default_rng(0)
    varied = rings(rng.uniform(4, 9, 12)).with_columns(patient=[f"p{i}" for i in range(12)])
    alike = rings(np.full(12, 6.0)).with_columns(patient=[f"a{i}" for i in range(12)])
    real = rings(rng.uniform(4, 9, 12)).with_columns(patient=[f"r{i}" for i in range(12)])
    scores = {k: compare(real, s, mask_diversity(), resamples=50, repeats=4)[0]
              for k, s in (("varied", varied), ("alike", alike))}
    pairs = [np.mean([dice(a == k, b == k) for k in (1, 2, 3)]) for i, a in enumerate(varied.masks) for b in varied.masks[:i]]
    assert scores["varied"]["value"] == pytest.approx(np.mean(pairs)), "66 pairs, all of them drawn"
    assert scores["alike"]["value"] == 1 and scores["varied"]["high"] < 0.97


def test_wider_masks_are_as_far_as_they_are_wider() -> None:
    rng = np.random.default_rng(0)
    real = rings(rng.uniform(4, 6, 12)).with_columns(patient=[f"r{i}" for i in range(12)])
    wide = Slices(real.images, real.masks, real.table.assign(spacing=real.table["spacing"] * 2,
                                                             patient=[f"s{i}" for i in range(12)]))
    rows = {r["metric"]: r["value"] for r in compare(real, wide, anatomy_of_masks(), resamples=20, repeats=4)}
    area = (real.masks == 1).sum((1, 2))
    assert rows["mask_w1_lv_cm2"] == pytest.approx(3 * area.mean() / area.std(), rel=1e-6)  # four times the area
    assert rows["mask_w1_lv_myo"] == pytest.approx(0, abs=1e-9) and rows["mask_lv_missing"] == 0


@pytest.mark.parametrize("system", LABEL_MAPS.values(), ids=lambda s: s.id)
def test_each_system_trains_and_draws(system, tmp_path: Path) -> None:
    params, slices = open_study("smoke", "phantom").params, discs(4, 4)
    assert params.masks.vae.network.size == params.preprocess.size and system.stage == "masks"
    generator = system.build(params, Vocabulary.of(slices), seed=0)
    settings = system.training(params)
    data = generator.prepare(training_batch(slices, generator.conditioning))
    log = train(generator, data, TrainSettings(steps=4, batch=4, log_every=2, optimiser=settings.optimiser,
                                               learning_rate=settings.learning_rate), tmp_path)
    assert np.isfinite(log["loss_model"]).all()
    assert draw_masks(generator, slices, system.id).masks.shape == (16, 32, 32)
    assert (" + ".join(generator.prior.conditioning.fields) or "none") == system.conditioning


def test_what_cannot_work_is_refused() -> None:
    conditioning = LabelMap()
    prior = Diffusion(Denoiser(UNetSettings((8, 16), head_channels=8), conditioning, 4), conditioning)
    with pytest.raises(ParameterError, match="conditioning"):
        LabelMaps(prior)
    slices = rings(np.full(4, 5.0), disease=["NOR", "DCM"] * 2)
    with pytest.raises(ParameterError, match="no codes"):
        disease_direction(label_diffusion(), slices, "NOR", "DCM")
    generator = label_vae()
    with pytest.raises(ParameterError, match="severity"):
        shift_to_disease(generator, slices, disease_direction(generator, slices, "NOR", "DCM"), float("nan"))
    with pytest.raises(SplitError, match="test"):
        training_batch(slices.with_columns(split="test"), generator.conditioning)
    with pytest.raises(DataError, match="level"):
        draw_masks(label_diffusion(), slices.with_columns(level="valve"), "C10")
    with pytest.raises(ParameterError, match="rounds"):
        sample_valid_masks(generator, slices, "C4", Ranges.of(slices), rounds=0)
    with pytest.raises(DataError, match="screen"):
        sample_valid_masks(generator, slices, "C4", Ranges.of(slices), rounds=2)
    whole = sample_valid_masks(generator, slices, "C4", Ranges.of(slices), rounds=2, fewest=2)
    assert len(whole) == len(slices) and (whole.table["draws"] == 0).all(), "given up, the first draw is whole"
