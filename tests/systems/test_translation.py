"""Translation: pairs of one place, flows that start from an image, and systems that make what their source asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import discs
from torch import Tensor, nn

from cmri_lib.cohort.phase_pairs import phase_pairs
from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import open_study
from cmri_lib.errors import DataError
from cmri_lib.experiments.training import training_slices
from cmri_lib.experiments.translation import Truth
from cmri_lib.generators.base import batch_of, draw, training_batch
from cmri_lib.generators.flow import DirectFlow, FlowSettings
from cmri_lib.networks.conditioning.partner import PARTNER, PartnerImage
from cmri_lib.systems.system import Run
from cmri_lib.systems.translation import CONTRACTION, TRANSLATION
from cmri_lib.training import train


def two_phases(patients: int = 6, split: str = "train", seed: int = 0) -> Slices:
    """ED of discs, and ES of the same slices, darker by a half."""
    ed = discs(patients, 3, seed=seed, split=split)
    ed = ed.with_columns(phase="ED", index=np.arange(len(ed)) % 3)
    return concatenate([ed, replace(ed.with_columns(phase="ES"), images=ed.images * 0.5 - 0.5)])


def test_partners_are_the_same_place_at_the_other_phase() -> None:
    both = two_phases()
    shuffled = both.take(np.random.default_rng(1).permutation(len(both)))
    pairs = phase_pairs(shuffled)
    assert set(pairs.table["phase"]) == {"ES"} and len(pairs) == len(both) // 2
    np.testing.assert_allclose(pairs.images, pairs.partners * 0.5 - 0.5, atol=1e-6)
    np.testing.assert_array_equal(phase_pairs(both, "ES", "ED").images, both.where(phase="ED").images)
    lonely = shuffled.take(~((shuffled.table["phase"] == "ED") & (shuffled.table["index"] == 0)).to_numpy())
    assert set(phase_pairs(lonely).table["index"]) == {1, 2}
    assert not len(phase_pairs(both.where(phase="ES")))


def test_partners_go_where_their_slices_go() -> None:
    pairs = phase_pairs(two_phases())
    np.testing.assert_array_equal(pairs.take([3, 1]).partners, pairs.partners[[3, 1]])
    np.testing.assert_array_equal(concatenate([pairs, pairs]).partners[len(pairs):], pairs.partners)
    assert concatenate([pairs, replace(pairs, partners=None)]).partners is None
    with pytest.raises(DataError, match="partners unlike images"):
        replace(pairs, partners=pairs.partners[:2])
    with pytest.raises(DataError, match="do not have it"):
        batch_of(replace(pairs, partners=None), PartnerImage())


class Constant(nn.Module):
    """The same velocity everywhere."""

    def forward(self, x: Tensor, t: Tensor, batch: dict) -> Tensor:
        return torch.full_like(x, 0.25)


class Difference(nn.Module):
    """The velocity of a pair that knows its end."""

    def forward(self, x: Tensor, t: Tensor, batch: dict) -> Tensor:
        return batch["image"] - batch[PARTNER]


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
def test_a_direct_flow_starts_from_the_source(solver: str) -> None:
    flow = DirectFlow(Constant(), PartnerImage(concatenated=False), FlowSettings("independent", solver=solver, steps=3))
    source = torch.rand(4, 1, 8, 8)
    made = flow.sample(torch.randn(4, 1, 8, 8), {PARTNER: source})
    torch.testing.assert_close(made, source + 0.25)
    exact = DirectFlow(Difference(), PartnerImage(concatenated=False), FlowSettings("independent"))
    pair = {"image": torch.rand(4, 1, 8, 8), PARTNER: source}
    assert exact.loss(pair, "model").item() == pytest.approx(0, abs=1e-12)
    assert flow.loss(pair, "model").item() == pytest.approx((pair["image"] - source - 0.25).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize("system", TRANSLATION.values(), ids=lambda s: s.id)
def test_each_system_learns_from_pairs_and_follows_its_source(system, tmp_path: Path) -> None:
    slices = concatenate([two_phases(), two_phases(2, "validation", seed=5)])
    seen, unseen = training_slices(Run(system), slices)
    assert seen.partners is not None and len(seen.partners) == len(seen)
    assert (set(seen.table["phase"]) == {"ES"}) == (system.id in CONTRACTION)
    params = open_study("smoke", "phantom").params
    generator = system.build(params, Vocabulary.of(slices), 0)
    settings = replace(system.training(params), steps=4, batch=4, log_every=2)
    train(generator, training_batch(seen, generator.conditioning), settings, tmp_path)
    made = draw(generator, unseen, system.id)
    assert made.masks.any() and set(made.patients) == set(unseen.patients)  # a translation shows its patient
    swapped = replace(unseen, partners=unseen.partners[::-1].copy())
    with torch.no_grad():
        for p in (p for p in generator.parameters() if not p.any()):
            p.normal_(0, 0.05)  # what starts at zero has hardly moved in four steps
    first, second, again = (draw(generator, some, system.id, seed=seed).images
                            for some, seed in ((unseen, 0), (swapped, 0), (unseen, 1)))
    assert not np.allclose(first, second, atol=1e-4)
    assert np.array_equal(first, again) == (system.id.startswith(("C17 Direct-FM", "C19 U-Net")))


def test_likeness_to_the_truth_is_exact_for_the_truth_and_paired_in_differences() -> None:
    truth = Truth(phase_pairs(two_phases(5, "test")), lambda images: (images[:, 0] > 0).astype(np.uint8),
                  {"seed": 0, "resamples": 50})
    perfect, copied = truth.pairs, truth.copied
    assert np.array_equal(copied.images, truth.pairs.partners)
    rows = {row["metric"]: row for row in truth.rows("a system", perfect)}
    assert rows["ssim_target"]["value"] == pytest.approx(1, abs=1e-5) and rows["ssim_target"]["ceiling"] == 1
    floor = {row["metric"]: row for row in truth.rows("source", copied)}["ssim_target"]["value"]
    assert floor == pytest.approx(rows["ssim_target"]["floor"]) and floor < 0.999
    difference = truth.difference(perfect, copied, "ssim_target")
    assert difference.value == pytest.approx(1 - floor, abs=1e-5) and difference.low > 0
    with pytest.raises(DataError, match="other places"):
        truth.rows("a system", perfect.take(np.arange(len(perfect))[::-1]))
