"""The register of metrics knows every name of the committed results, and composes families."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.measures.panel import measures
from cmri_lib.reporting import metrics
from cmri_lib.reporting.metric_uses import USES

ROOT = Path(__file__).parents[2]


def committed() -> set[str]:
    """The metrics of every table below ``results``: scores, and curves."""
    tables = [pd.read_csv(file) for file in sorted((ROOT / "results").rglob("*.csv"))]
    return {metric for table in tables if "metric" in table for metric in table["metric"]}


def test_every_committed_metric_has_a_title_and_a_heading() -> None:
    names = committed()
    assert len(names) > 50
    assert [name for name in names if not metrics.known(name)] == []
    assert [name for name in names if "_" in metrics.label(name) + metrics.short(name)] == []
    assert {metrics.describe(name).axis for name in names} <= set(metrics.AXES)
    titles = [metrics.title(name) for name in names]
    assert len(set(titles)) == len(titles), "two metrics with one title"


@pytest.mark.parametrize(("name", "label"), [
    ("mmd_anatomy", "Distance of anatomy (MMD, segmenter's features)"),
    ("mmd_classical", "Distance of appearance (MMD, Gabor features)"),
    ("mmd_components", "Bounded kernel distance (MMD), principal components of pixels"),
    ("precision_textbook_study", "Precision, textbook form, study features"),
    ("kid_study", "Kernel distance (KID), study features"),
    ("kid_classical", "Kernel distance (KID), Gabor features"),
    ("c2st_study_spectrum", "Accuracy of the two-sample classifier (C2ST), study features and spectrum"),
    ("near_copies_pixel", "Share of near copies of training images, pixels"),
    ("hd95_RV_mm", "95 % Hausdorff distance to the mask, RV (mm)"),
    ("dice_Myo", "Dice with the mask, myocardium"),
    ("anatomy_w1_wall_mm", "Wasserstein distance of wall thickness (SD)"),
    ("mask_w1_lv_cm2", "Wasserstein distance of LV area of masks (SD)"),
    ("accuracy_level", "Condition accuracy, level")])
def test_families_are_composed(name: str, label: str) -> None:
    assert metrics.known(name) and metrics.label(name) == label


@pytest.mark.parametrize("name", ["my_new_measure", "kid_elsewhere", "dice_Aorta", "anatomy_w1_atrium"])
def test_an_unknown_metric_keeps_its_name(name: str) -> None:
    assert not metrics.known(name)
    assert metrics.label(name) == metrics.short(name) == name.replace("_", " ")
    assert metrics.number(name, 0.5) == "0.5"


def test_the_headline_is_described_and_in_the_order_of_the_headings() -> None:
    assert all(metrics.known(name) for name in metrics.HEADLINE)
    places = [metrics.AXES.index(metrics.describe(name).axis) for name in metrics.HEADLINE]
    assert places == sorted(places) and len(set(metrics.HEADLINE)) == len(metrics.HEADLINE)
    assert metrics.headline(["dice_mean", "other", "kid_study"]) == ["kid_study", "dice_mean"]


def test_panels_are_few_even_and_keep_an_axis_whole() -> None:
    groups = metrics.panels(metrics.HEADLINE)
    assert [name for group in groups for name in group] == list(metrics.HEADLINE)
    assert max(map(len, groups)) <= 10, "at most ten of an axis in HEADLINE: a new one takes the place of another"
    assert len(groups) == 3, "25 metrics do not fit into two panels of ten"
    axes = [{metrics.describe(name).axis for name in group} for group in groups]
    assert sum(map(len, axes)) == len(set().union(*axes))
    fidelity = [name for name in metrics.HEADLINE if metrics.describe(name).axis == "fidelity"]
    assert metrics.panels(fidelity, most=3) == [fidelity], "an axis that does not fit is not torn"
    assert metrics.panels([]) == []


@pytest.mark.parametrize(("name", "value", "shown"), [
    ("kid_study", 0.123, "0.12"), ("kid_study", 17.06, "17.1"), ("kid_study", 373.72, "374"),
    ("kid_study", -0.001, "0.00"), ("band_excess", 0.4, "+0.40"), ("images_seen", 2560, "2,560"),
    ("kid_study", float("nan"), "")])
def test_numbers_have_as_many_digits_as_can_be_read(name: str, value: float, shown: str) -> None:
    assert metrics.number(name, value) == shown


def test_a_direction_is_said_in_words_and_by_an_arrow() -> None:
    assert metrics.direction("kid_study", "lower") == "lower is better"
    assert metrics.arrow("dice_mean", "higher") == "↑"
    assert metrics.direction("band_excess", "higher") == "nearer to 0 is better", "both signs are faults"


def test_every_metric_that_one_can_choose_says_when_to_use_it() -> None:
    asked = [pd.read_csv(file) for file in sorted((ROOT / "figures").glob("*/06/corruptions.csv"))]
    chosen = {*metrics.HEADLINE, *(name for table in asked for name in table["metric"])}
    assert len(asked) > 1 and [name for name in sorted(chosen) if not metrics.use(name)] == []
    panel = {metric.name for measure in measures([ClassicalFeatures()]) for metric in measure.metrics}  # has no rows at first
    used = {metrics.use(name) for name in committed() | panel}
    assert set(USES.values()) <= used, "a sentence that no metric has"
    assert all(text.endswith(".") or text.endswith("?") for text in USES.values())
    assert max(map(len, USES.values())) < 100 and len(set(USES.values())) == len(USES)


@pytest.mark.parametrize(("name", "family"), [
    ("kid_classical", "kid"), ("kid_textbook_study", "kid"), ("c2st_image", "c2st_image"), ("c2st_study", "c2st"),
    ("downstream_dice_unseen", "downstream_dice_unseen"), ("dice with the mask", "dice"), ("mmd_anatomy", "mmd_anatomy"),
    ("mmd_components", "mmd"), ("anatomy_w1_lv_cm2", "anatomy_w1")])
def test_the_nearest_sentence_is_taken(name: str, family: str) -> None:
    assert metrics.use(name) == USES[family]
    assert metrics.use("kidney") == metrics.use("my_new_measure") == ""


def rows(metric: str, floor: float, ceiling: float, *systems: str) -> pd.DataFrame:
    return pd.DataFrame([{"system": s, "metric": metric, "floor": floor, "ceiling": ceiling}
                         for s in systems or ("U1",)])


def test_references_name_the_bound_that_real_images_score() -> None:
    def kinds(table: pd.DataFrame) -> dict[str, float]:
        return {kind: value for value, kind, _ in metrics.references(table, table["metric"].iloc[0])}

    assert kinds(rows("kid_study", 0.01, 0.03)) == {"real": 0.01, "copies": 0.03}
    assert kinds(rows("dice_mean", 0.4, 0.9)) == {"nothing": 0.4, "real": 0.9}
    assert kinds(rows("kid_study", 0.01, 0.0)) == {"real": 0.01}, "0 is the end of the range, not a score"
    assert kinds(rows("nearest_share_study", 0.5, 1.0)) == {"real": 0.5, "copies": 1.0}, "copies do score 1"
    assert kinds(rows("dice_mean", 0.4, 1.0, "real")) == {"nothing": 0.4}, "of real images 1 is perfection"
    assert kinds(rows("seconds_per_image", float("nan"), float("nan"))) == {}
    assert kinds(rows("a_new_one", 0.1, 0.2)) == {}, "what the bounds of an unknown metric mean is unknown"


def test_metrics_of_few_systems_stand_apart() -> None:
    both = pd.concat([rows("kid_study", 0, 0, "A", "B", "C", "D"), rows("recall_study", 0, 0, "A", "B", "C"),
                      rows("dice_mean", 0, 0, "D")])
    assert metrics.blocks(both) == [(["A", "B", "C", "D"], ["kid_study", "recall_study"]),
                                    (["D"], ["dice_mean"])]
    spread = pd.concat([rows("accuracy_vendor", 0, 0, "A"), rows("accuracy_phase", 0, 0, "B"),
                        rows("accuracy_disease", 0, 0, "C")])
    assert len(metrics.blocks(spread)) == 1, "together they are of most systems"
