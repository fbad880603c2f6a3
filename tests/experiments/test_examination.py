"""The examination on small hearts: the headline puts every set without hearts behind every set with hearts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import discs

from cmri_lib.cohort.slices import Slices, concatenate
from cmri_lib.config.study import open_study
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.examination import (COPIES, FAULTS, REAL, REPEATED, Candidate, candidates, examine, misordered,
                                               unseen)
from cmri_lib.measures import panel
from cmri_lib.measures.anatomy.validity import Certainty, Ranges, validity_of_samples
from cmri_lib.measures.fidelity.corruptions import LARGEST, phase_randomised, response
from cmri_lib.measures.instruments.certainty import HeartCertainty
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.instruments.learned_features import Cached
from cmri_lib.measures.instruments.principal_features import anatomy_features
from cmri_lib.measures.instruments.segmenter import train_segmenter
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.statistics.comparison import Measure, Metric
from cmri_lib.reporting import figures
from cmri_lib.training import TrainSettings

WITHOUT = [name for name, (_, _, hearts) in FAULTS.items() if not hearts]


@pytest.fixture(scope="module")
def cohort() -> Slices:
    sizes = {"train": 24, "validation": 10, "test": 12, "holdout": 12}
    return concatenate([discs(n, 6, seed=k, split=split) for k, (split, n) in enumerate(sizes.items())])


@pytest.fixture(scope="module")
def evaluator(cohort: Slices, tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    """An evaluator with both headline distances and valid hearts, on a segmenter trained for seconds."""
    training, folder = cohort.where(split="train"), tmp_path_factory.mktemp("segmenter")
    settings = TrainSettings(steps=120, batch=8, learning_rate=5e-3, warmup=10, ema=0.9)
    segmenter = Cached(train_segmenter(training, settings, folder, widths=(8, 16, 24, 32)))
    spaces = [Cached(anatomy_features(segmenter.function, training)), Cached(ClassicalFeatures())]
    ranges = Ranges.of(training)
    sure = Certainty.learnt(HeartCertainty(segmenter.function), segmenter, training, ranges)
    chosen = [*panel.headline(spaces, training), validity_of_samples(ranges, segmenter, sure)]
    made = Evaluator(open_study("smoke", "phantom"), cohort, 60, chosen)
    made._chance["repeats"] = 20
    made.__dict__["segmenter"], made.__dict__["spaces"] = segmenter, spaces
    return made


@pytest.fixture(scope="module")
def table(evaluator: Evaluator) -> pd.DataFrame:
    bank = evaluator.test.with_columns(source="bank")
    return examine(evaluator, candidates(evaluator.test, evaluator.training, generated={"a bank": bank}))


def test_only_samples_of_generators_are_shown_where_patients_are(evaluator: Evaluator, tmp_path: Path) -> None:
    """What repeats a patient or copies training shows patients, whatever it is called."""
    real = {part: getattr(evaluator, part).with_columns(dataset="acdc") for part in ("test", "training")}
    bank = real["test"].with_columns(source="a generator")
    sets = candidates(real["test"], real["training"], generated={"a bank": bank})
    study = replace(open_study("smoke", "acdc"), root=tmp_path)
    figures.publish_slices(study, "06/sets", {name: one.slices.take(range(4)) for name, one in sets.items()}, title="sets")
    assert {REPEATED, COPIES} <= set(sets)
    assert set(pd.read_csv(study.figures / "06" / "sets.csv")["row"]) == {"a bank"}


def test_no_set_without_hearts_stands_before_one_with_hearts(table: pd.DataFrame) -> None:
    assert misordered(table) == []
    valid = table[table["metric"] == "heart_valid"].set_index("set")["value"]
    assert valid[REAL] > 0.8 and (valid[WITHOUT] < 0.1).all(), valid


def test_faults_are_seen_and_real_patients_are_not(table: pd.DataFrame) -> None:
    assert set(unseen(table)) <= {"slight noise"}, "it is as slight as the noise of the discs themselves"
    seen = table.pivot(index="set", columns="metric", values="seen")
    assert seen.loc[WITHOUT, ["mmd_anatomy", "mmd_classical", "heart_valid"]].all(axis=None)
    assert not seen.loc[REAL, ["mmd_anatomy", "heart_valid"]].any(), "other patients are no fault"
    assert seen.loc[COPIES, "nearest_excess_anatomy"] and not seen.loc[COPIES, "mmd_anatomy"], "only the audit sees copies"
    assert seen.loc[REPEATED, "mmd_anatomy"]


def test_the_examination_is_of_the_form_that_it_says(table: pd.DataFrame) -> None:
    assert set(table["set"]) == {REAL, *FAULTS, REPEATED, COPIES, "a bank"}
    assert table.loc[table["set"] == "a bank", "hearts"].isna().all() and table["response"].abs().max() <= LARGEST
    bank, real = (table[table["set"] == name].set_index("metric")["value"] for name in ("a bank", REAL))
    assert bank["mmd_anatomy"] == real["mmd_anatomy"], "the same slices have the same value"


def test_candidates_are_as_many_as_test_slices_and_copies_bear_names_of_their_own(cohort: Slices) -> None:
    test, training = cohort.where(split="test"), cohort.where(split="train")
    sets = candidates(test, training)
    assert {len(c.slices) for c in sets.values()} == {len(test)}
    known = {image.tobytes() for image in training.images}
    assert all(image.tobytes() in known for image in sets[COPIES].slices.images)
    assert len(np.unique(sets[REPEATED].slices.images, axis=0)) == 6 and len(np.unique(sets[COPIES].slices.patients)) == 72
    again = candidates(test, training)
    assert all(np.array_equal(again[name].slices.images, c.slices.images) for name, c in sets.items())


def test_wrong_orders_and_unseen_faults_are_found() -> None:
    rows = [{"set": s, "hearts": h, "metric": "mmd_anatomy", "value": v, "seen": v > 0.2}
            for s, h, v in ((REAL, True, 0.0), ("blur", True, 0.3), ("torn", False, 0.1), ("bank", None, 0.05))]
    assert misordered(pd.DataFrame(rows)) == [("torn", "blur")] and unseen(pd.DataFrame(rows)) == ["torn"]


def test_random_phases_keep_spectrum_and_mean(cohort: Slices) -> None:
    small = cohort.where(split="test")
    quiet = Slices(small.images / 4, small.masks, small.table)  # nothing is clipped
    turned = phase_randomised(quiet, 1.0, np.random.default_rng(0))
    before, after = (np.abs(np.fft.fft2(s.images)) for s in (quiet, turned))
    np.testing.assert_allclose(after, before, atol=1e-3)
    np.testing.assert_allclose(turned.images.mean((2, 3)), quiet.images.mean((2, 3)), atol=1e-6)
    assert abs(np.corrcoef(turned.images.ravel(), quiet.images.ravel())[0, 1]) < 0.6
    same = phase_randomised(quiet, 0.0, np.random.default_rng(0))
    np.testing.assert_allclose(same.images, quiet.images, atol=1e-6)


def test_a_response_is_finite() -> None:
    assert [response(c, s) for c, s in ((0.0, 0.0), (-1.0, 0.0), (1.0, 0.5), (1e6, 0.5))] == [0, -LARGEST, 2, LARGEST]


@pytest.mark.parametrize(("better", "found", "seen", "deviations"), [
    ("zero", -0.4, True, 0.3), ("zero", 0.4, True, 0.3), ("zero", -0.25, False, 0.15), ("zero", 0.0, False, -0.1),
    ("lower", 0.4, True, 0.3), ("lower", 0.15, False, 0.05), ("lower", -0.4, False, -0.5),
    ("higher", 0.4, False, -0.3), ("higher", -0.25, False, 0.35), ("higher", -0.4, True, 0.5)])
def test_a_value_is_seen_beyond_the_interval_of_real_groups_on_the_side_that_is_worse(
        better: str, found: float, seen: bool, deviations: float) -> None:
    """Real groups score 0.1, nearly all of them from −0.3 to 0.2, which is 3.92 deviations. Where both signs are faults, −0.3
    and 0.3 are the same fault, and the change is that of the distance to 0."""
    brightness = Measure((Metric("level", better),), lambda slices: slices.images.mean((1, 2, 3)),
                         lambda real, made: [lambda u, v: float(np.average(made.values, weights=v))])
    real = Slices.from_arrays(np.zeros((2, 8, 8)), patient=["a", "b"], value_range=(-1, 1))
    made = Slices(real.images + np.float32(found), real.masks, real.table)
    bounds = {brightness: {"floor": {"level": Score(0.1, -0.3, 0.2, n=2)}}}
    row = examine(SimpleNamespace(others=real, measures=[brightness], bounds=bounds), {"a bank": Candidate(made, None)},
                  audit=False).iloc[0]
    assert (row["set"], row["metric"], row["floor"], row["seen"]) == ("a bank", "level", 0.1, seen)
    assert row["value"] == pytest.approx(found) and row["response"] == pytest.approx(deviations / (0.5 / 3.92), rel=1e-5)


def test_a_value_that_is_not_known_is_not_seen() -> None:
    nothing = Measure((Metric("level", "zero"),), lambda slices: slices.images.mean((1, 2, 3)),
                      lambda real, made: [lambda u, v: float("nan")])
    real = Slices.from_arrays(np.zeros((2, 8, 8)), patient=["a", "b"], value_range=(-1, 1))
    bounds = {nothing: {"floor": {"level": Score(0.1, -0.3, 0.2, n=2)}}}
    row = examine(SimpleNamespace(others=real, measures=[nothing], bounds=bounds), {"a": Candidate(real, None)}, False).iloc[0]
    assert not row["seen"] and np.isnan(row["response"])
