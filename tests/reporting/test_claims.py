"""Verdicts: each side of the margin, the undecided middle, the gate, Holm's correction, and the register they follow."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cmri_lib.errors import DataError, ParameterError
from cmri_lib.measures.statistics.bootstrap import Score, score_difference
from cmri_lib.reporting import metrics, review
from cmri_lib.reporting.claims import (MOVING, SETTLED, UNSEEN, UNTESTABLE, Ledger, after_holm, evidence, finished, holm,
                                       doubling_of_curve, score_of, share, time_to_quality, two_sided, unfit)
from cmri_lib.reporting.primary_tests import ANATOMY, HEARTS, PRIMARY, register


def normal(value: float, error: float = 1.0, **more: object) -> Score:
    """A score with the interval of a normal variable."""
    half = stats.norm.ppf(0.975) * error
    return Score(value, value - half, value + half, n=20, **more)


def verdict(effect: Score, direction: str, margin: float = 0.0) -> str:
    ledger = Ledger()
    ledger.explore("F1", "a − b", effect, "kid_study", direction, margin)
    return ledger.rows[0]["verdict"]


@pytest.mark.parametrize(("low", "high", "above", "below", "beyond", "within"), [
    (0.1, 0.3, "supported", "not supported", "undecided", "undecided"),
    (-0.3, -0.1, "not supported", "supported", "undecided", "undecided"),
    (-0.1, 0.3, "undecided", "undecided", "undecided", "undecided"),
    (-0.1, 0.1, "undecided", "undecided", "not supported", "supported"),
    (0.3, 0.5, "supported", "not supported", "supported", "not supported"),
    (-0.5, -0.3, "not supported", "supported", "supported", "not supported"),
    (0.0, 0.2, "undecided", "undecided", "undecided", "undecided")])
def test_a_verdict_needs_the_whole_interval(low: float, high: float, above: str, below: str, beyond: str, within: str) -> None:
    score = Score((low + high) / 2, low, high, n=9)
    assert (verdict(score, "above"), verdict(score, "below")) == (above, below)
    assert (verdict(score, "beyond", 0.2), verdict(score, "within", 0.2)) == (beyond, within)
    assert verdict(score, "above", 1.0) == "not supported"


@pytest.mark.parametrize("df", [2.0, 7.5, np.inf])
@pytest.mark.parametrize("z", [-3.0, -0.4, 0.0, 1.0, 5.0])
def test_p_is_that_of_the_t_test_whose_interval_it_is(z: float, df: float) -> None:
    half = stats.t.ppf(0.975, df) * 0.3
    score = Score(2 + 0.3 * z, 2 + 0.3 * z - half, 2 + 0.3 * z + half, n=9, df=df)
    assert evidence(score, "above", 2.0) == pytest.approx((stats.t.sf(z, df), stats.t.cdf(z, df)))
    assert evidence(score, "below", 2.0) == pytest.approx((stats.t.cdf(z, df), stats.t.sf(z, df)))


@pytest.mark.parametrize("z", [-3.0, -1.0, 0.0, 0.5, 2.5])
def test_p_of_no_difference_is_two_sided(z: float) -> None:
    assert two_sided(normal(z)) == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert two_sided(normal(z + 1), 1.0) == pytest.approx(two_sided(normal(z)))
    assert np.isnan(two_sided(Score(1, np.nan, np.nan, 2)))


def test_p_faces_the_margin_and_equivalence_is_two_one_sided_tests() -> None:
    lopsided = Score(1.0, -9.0, 1.5, n=9)
    assert evidence(lopsided, "below", 2.0)[0] == pytest.approx(stats.norm.sf(1.96 * 2, scale=1), rel=1e-2)
    assert evidence(lopsided, "above", 0.0)[0] == pytest.approx(stats.norm.sf(0.196), rel=1e-3)
    wanted = max(stats.norm.sf(1.0), stats.norm.sf(3.0))  # 1 below +margin, 3 above −margin, in standard errors
    assert evidence(normal(1.0), "within", 2.0)[0] == pytest.approx(wanted)
    assert evidence(normal(3.0), "beyond", 2.0)[0] == pytest.approx(stats.norm.sf(1.0))
    assert np.isnan(evidence(Score(1.0, np.nan, np.nan, n=2), "above")).all()
    assert evidence(Score(1.0, 1.0, 1.0, n=2), "above") == (0.0, 1.0)


def test_a_claim_needs_all_of_its_criteria_and_fails_with_any_one() -> None:
    def row(*effects: Score, **unfit_systems: str) -> dict:
        ledger = Ledger({name: "no hearts" for name in unfit_systems.values()})
        ledger.primary("F1", *effects, parties=["U6 DDPM", "U5 StyleGAN2-ADA"])
        return ledger.rows[0]

    good = row(normal(-4), normal(-3), normal(5))
    assert good["verdict"] == "supported" and good["primary"] and good["effect"] == -3
    assert good["p"] == pytest.approx(2 * stats.norm.sf(3)) and "StyleGAN2-ADA: " in good["test"]
    assert row(normal(-4), normal(-3), normal(1))["verdict"] == "undecided"
    mixed = row(normal(-9), normal(4), normal(9))
    assert mixed["verdict"] == "not supported" and mixed["p"] == pytest.approx(2 * 3 * stats.norm.sf(4)), (
        "one of three is false")
    assert mixed["effect"] == 4
    assert row(normal(-9), normal(2.2), normal(9))["verdict"] == "undecided", "of three one is against by chance more easily"
    assert row(normal(4), normal(3), normal(-5))["verdict"] == "not supported"
    assert np.isnan(row(normal(-4), normal(-3), Score(1.0, np.nan, np.nan, n=2))["p"])
    gated = row(normal(-4), normal(-3), normal(5), party="U5 StyleGAN2-ADA")
    assert gated["verdict"] == UNTESTABLE and np.isnan(gated["p"]) and gated["effect"] == -3


def test_the_register_is_followed() -> None:
    ledger, rule = Ledger(), {"frechet_study": 1.5}
    with pytest.raises(ParameterError, match="3 effects"):
        ledger.primary("F1", normal(1))
    with pytest.raises(ParameterError, match="frechet_study"):
        ledger.primary("F6", normal(1), normal(1))
    with pytest.raises(ParameterError, match="X9"):
        ledger.primary("X9", normal(1))
    ledger.primary("F6", Score(1.0, 0.5, 1.4, n=9), Score(0.97, 0.95, 1.0, n=9), **rule)
    assert ledger.rows[0]["verdict"] == "supported"
    with pytest.raises(ParameterError, match="F5"):
        ledger.primary("F5", normal(1), normal(1), **rule)
    assert ledger.table("F6").shape == (1, 9) and ledger.table("F1").empty


def test_the_register_names_claims_of_the_review_and_known_metrics_once() -> None:
    table = register()
    assert list(table) == ["claim", "comparison", "metric", "direction", "margin"]
    assert set(table["claim"]) <= set(review.CLAIMS) and set(PRIMARY) == set(table["claim"])
    assert table["direction"].isin(["above", "below", "beyond", "within"]).all()
    assert not [m for m in table["metric"] if not metrics.known(m)]


def test_holm_is_closed_testing_with_bonferroni() -> None:
    # Adjusted p of a hypothesis: the largest, over all sets that hold it, of the set's size × its smallest p.
    rng = np.random.default_rng(0)
    for m in (1, 2, 5):
        p = rng.uniform(0, 0.3, m)
        sets = [s for size in range(1, m + 1) for s in combinations(range(m), size)]
        wanted = [min(1, max(len(s) * min(p[list(s)]) for s in sets if k in s)) for k in range(m)]
        assert holm(p) == pytest.approx(wanted)
    assert np.allclose(holm(np.array([0.01, np.nan, 0.04])), [0.02, np.nan, 0.04], equal_nan=True)


def test_holm_keeps_wrong_verdicts_rare_and_touches_primary_tests_alone() -> None:
    rng, wrong = np.random.default_rng(1), {"single": 0, "holm": 0}
    for _ in range(1500):
        p = 2 * stats.norm.sf(np.abs(rng.normal(size=12)))
        wrong["single"] += (p < 0.05).any()
        wrong["holm"] += (holm(p) < 0.05).any()
    assert wrong["single"] / 1500 > 0.4 and wrong["holm"] / 1500 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1500)
    rows = [("F1", True, 0.001, "supported"), ("F1", False, 0.001, "supported"), ("F2", True, 0.03, "not supported"),
            ("F3", True, 0.04, "supported"), ("E1", True, np.nan, UNTESTABLE), ("M1", True, np.nan, "undecided")]
    table = pd.DataFrame(rows, columns=["claim", "primary", "p", "verdict"]).assign(dataset="phantom", profile="laptop")
    corrected = after_holm(pd.concat([table, table[2:3].assign(dataset="acdc")], ignore_index=True))
    assert list(corrected["after Holm"]) == ["supported", "", "undecided", "undecided", UNTESTABLE, "undecided",
                                             "not supported"], "a cohort has a family of its own"


def line(system: str, values: dict[int, float], half: float = 0.01, metric: str = ANATOMY) -> pd.DataFrame:
    frame = pd.DataFrame({"system": system, "curve": "images", "x": list(values), "metric": metric,
                          "value": list(values.values())})
    return frame.assign(low=frame["value"] - half, high=frame["value"] + half, n=20, seconds=frame["x"] / 100)


def test_the_gate_asks_for_hearts_and_for_a_curve_that_has_ended() -> None:
    hearts = pd.DataFrame({"system": ["A", "B", "real"], "metric": HEARTS, "value": [0.3, 0.6, 0.9], "floor": 0.9})
    curves = pd.concat([line("B", {100: 0.9, 200: 0.5, 400: 0.2}), line("C", {200: 0.2, 400: 0.195}),
                        line("D", {200: 0.5, 400: 0.2}, half=0.4), line("E", {100: 0.5, 400: 0.2}),
                        line("F", {200: 0.5, 400: 0.2}, metric="kid_study")])
    found = unfit(hearts, curves)
    assert set(found) == {"A", "B"} and found["A"] == "no hearts" and "-60%" in found["B"]
    change, before = doubling_of_curve(line("B", {200: 0.5, 400: 0.2}))
    assert change.value == pytest.approx(-0.3) and before == 0.5 and share(change, before) == pytest.approx(-0.6)
    assert doubling_of_curve(line("E", {100: 0.5, 400: 0.2})) is None
    assert set(unfit(hearts, pd.DataFrame(columns=curves.columns))) == set(unfit(hearts)) == {"A"}


def test_a_training_moves_still_or_has_settled_or_nobody_can_tell() -> None:
    def of(value: float, half: float) -> str:
        return finished(Score(value, value - half, value + half, 20), before=0.5)

    assert of(-0.3, 0.1) == of(0.3, 0.1) == MOVING
    assert of(0.01, 0.01) == SETTLED, "0.02 at the most, 4 % of what it was"
    assert of(-0.3, 0.4) == of(0.0, 0.1) == of(0.02, 0.01) == of(-0.3, np.nan) == UNSEEN


def test_where_real_images_show_no_hearts_no_claim_is_testable() -> None:
    hearts = pd.DataFrame({"system": ["A", "real"], "metric": HEARTS, "value": [0.3, 0.3], "floor": 0.3})
    ledger = Ledger(unfit(hearts))
    ledger.explore("T1", "A − real", Score(0.2, 0.1, 0.3, 20), "downstream_dice", "above", parties=["A"])
    assert "cannot be judged" in ledger.unfit["A"] and ledger.rows[0]["verdict"] == UNTESTABLE


def test_difference_of_scores_is_exact_for_independent_normal_ones() -> None:
    # Standard errors 3 and 4 give 5.
    found = score_difference(normal(2.0, 3.0), normal(1.0, 4.0))
    assert np.allclose([found.value, found.low, found.high], [1.0, *stats.norm.interval(0.95, 1, 5)])
    lopsided = score_difference(Score(0, -3, 0, n=5), Score(0, 0, 4, n=5))
    assert np.allclose([lopsided.low, lopsided.high], [-5, 0])


def test_one_score_is_read_from_a_table() -> None:
    numbers = line("A", {100: 3.0, 200: 0.9})
    assert score_of(numbers, ANATOMY, system="A", x=200).value == 0.9
    with pytest.raises(DataError, match="0 rows"):
        score_of(numbers, "kid", system="A")


def test_degrees_of_freedom_survive_a_table() -> None:
    """Of several trainings a tail is Student's, and the normal one would be much smaller. A table without them says less."""
    score = Score(0.15, 0.09, 0.21, 20, seeds=3, df=2.4)
    row = {"system": "A", **score.row("kid", "fidelity", "lower")}
    kept = score_of(pd.DataFrame([row | {"df": score.df}]), "kid")
    assert evidence(kept, "above") == evidence(score, "above")
    fewest, normal = score_of(pd.DataFrame([row]), "kid"), score_of(pd.DataFrame([row | {"seeds": 1}]), "kid")
    tails = [evidence(one, "above")[0] for one in (fewest, kept, normal)]
    assert fewest.df == 2 and tails[0] > tails[1] > 1000 * tails[2]
    beside = pd.DataFrame([row | {"metric": "other", "df": score.df}, row | {"seeds": 1}])  # the second has none of its own
    assert score_of(beside, "kid").df == np.inf


def test_time_to_quality_takes_the_first_good_point() -> None:
    numbers = pd.concat([line("A", {100: 3.0, 200: 0.9, 300: 0.5}), line("B", {100: 3.0, 200: 2.0})])
    found = time_to_quality(numbers, 1.0).set_index("system")
    assert found.loc["A", "images"] == 200 and found.loc["A", "seconds"] == 2.0 and np.isnan(found.loc["B", "images"])
    assert found.loc["B", "at the end"] == 2.0
