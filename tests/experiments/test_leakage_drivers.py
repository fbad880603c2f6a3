"""Leakage stands beside the quality of the same samples, and guidance draws what its formula says."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import discs
from torch import Tensor, nn

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import Study, open_study
from cmri_lib.experiments import leakage_drivers
from cmri_lib.experiments.leakage_drivers import LEAKAGE, LeakageAndQuality, equality, guided_samples
from cmri_lib.experiments.privacy_audit import PrivacyAudit
from cmri_lib.experiments.privacy_runs import guided_run, vendor_runs
from cmri_lib.generators.flow import FlowMatching, FlowSettings
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.privacy.nearest_neighbours import Pixels
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, HEARTS
from cmri_lib.systems.ablation import CONDITION_SETS
from cmri_lib.systems.conditions import categories
from cmri_lib.systems.register import system
from cmri_lib.systems.system import Run

STUDY, FLOW = open_study("smoke", "phantom"), Run(system("U10 FM"))
SLICES = concatenate([discs(12, 4, 16), *(discs(8, 4, 16, seed=k, split=split) for k, split in
                                          enumerate(("holdout", "validation", "test"), 1))])
SLICES = SLICES.with_columns(phase=np.where(np.arange(len(SLICES)) % 2, "ED", "ES"))
STEP = 0.05


class Pushed(nn.Module):
    """A velocity that is the same everywhere: 0 where the phase is hidden, `STEP` in ED, minus that in ES."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.tensor(STEP))

    def forward(self, x: Tensor, t: Tensor, batch: dict) -> Tensor:
        sign = torch.tensor([0.0, 1.0, -1.0])[batch["phase"]].view(-1, 1, 1, 1)
        return (sign * self.step).expand_as(x)


@pytest.mark.parametrize(("low", "high", "verdict"), [(-0.1, 0.1, "equal"), (-0.1, 0.11, "undecided"), (0.11, 0.2, "different"),
                                                     (-0.3, -0.2, "different"), (0.05, 0.3, "undecided"),
                                                     (float("nan"), float("nan"), "undecided")])
def test_equal_is_what_lies_within_the_margin(low: float, high: float, verdict: str) -> None:
    assert equality(Score((low + high) / 2, low, high, 10), 0.1) == verdict


def test_leakage_and_quality_are_of_the_same_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bank is slices that were learnt from, the other slices of strangers."""
    audit = PrivacyAudit(STUDY, SLICES)
    audit.__dict__["spaces"] = [Pixels(), Pixels()]
    learnt, others = (SLICES.where(split=split).take(range(20)) for split in ("train", "validation"))
    names = [f"synthetic-{k // 4}" for k in range(20)]
    learnt, others = (s.with_columns(patient=names, split="test") for s in (learnt, others))
    quality = {id(learnt): 0.25, id(others): 0.75}
    evaluator = SimpleNamespace(
        rows=lambda of, bank: [{"metric": name, "value": quality[id(bank)]} for name in (HEARTS, "unasked", ANATOMY)],
        difference=lambda first, second, metric: Score(quality[id(first)] - quality[id(second)], -1, 1, 20))
    monkeypatch.setattr(leakage_drivers, "training_slices", lambda run, slices: (slices.where(split="train"), None))
    both = LeakageAndQuality(audit, evaluator)
    found = [{row["metric"]: row["value"] for row in both.rows(FLOW, bank)} for bank in (learnt, others)]
    assert list(found[0]) == [*LEAKAGE, ANATOMY, HEARTS], "what was not asked for is left out"
    assert found[0]["near_copy_rate_copy"] == 1 and found[0]["near_copy_excess_copy"] > 0.9
    assert found[1]["near_copy_rate_copy"] < 0.3 and found[0]["swapped_share_copy"] == 1 > found[1]["swapped_share_copy"]
    assert (found[0][HEARTS], found[1][HEARTS]) == (0.25, 0.75)
    table = both.table(FLOW, {0.0: learnt, 2.0: others})
    assert table.groupby("choice").size().to_dict() == {0.0: 5, 2.0: 5} and set(table["system"].dropna()) == {FLOW.id}
    assert {c: dict(zip(part["metric"], part["value"])) for c, part in table.groupby("choice")} == dict(zip((0.0, 2.0), found))
    assert both.table(FLOW, {}).empty and set(both.table(FLOW, {})) == set(table)
    changes = both.differences(FLOW, learnt, others)
    assert {m: changes[m].value for m in LEAKAGE} == {m: found[0][m] - found[1][m] for m in LEAKAGE}
    assert {m: changes[m].value for m in (ANATOMY, APPEARANCE, HEARTS)} == dict.fromkeys((ANATOMY, APPEARANCE, HEARTS), -0.5)


def test_guided_samples_move_by_the_scale_and_are_of_test_patients(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With velocities that are constant, guidance w moves an image by w times the step of its phase."""
    flow = FlowMatching(Pushed(), categories("phase")(Vocabulary({"phase": ("ED", "ES")})), FlowSettings(steps=2))
    monkeypatch.setattr(leakage_drivers, "train_or_load", lambda study, run, slices: flow)
    audit = PrivacyAudit(Study(tmp_path, STUDY.params), SLICES)
    banks = {scale: guided_samples(audit, FLOW, scale) for scale in (0.0, 1.0, 3.0)}
    sign = np.where(banks[0.0].table["phase"] == "ED", 1.0, -1.0)[:, None, None, None]
    inside = np.abs(banks[0.0].images) < 0.5  # images end at −1 and 1
    for scale, bank in banks.items():
        np.testing.assert_allclose((bank.images - banks[0.0].images)[inside], np.broadcast_to(scale * STEP * sign,
                                                                                           inside.shape)[inside], atol=1e-5)
        assert set(bank.table["split"]) == {"test"}
    assert inside.mean() > 0.2 and isinstance(flow.network, Pushed), "the guide is taken off again"
    flow.network.step.data += 1
    again = guided_samples(audit, FLOW, 3.0)
    assert np.abs(again.images - banks[3.0].images).max() > 0.1, "another network draws anew"


def test_what_is_guided_is_the_flow_of_notebook_07_and_no_other_that_is_attacked() -> None:
    run = guided_run()
    assert run.stage == "conditional" and run.system.id == f"flow {list(CONDITION_SETS)[2]}"
    assert run.folder not in {one.folder for one in vendor_runs()}
