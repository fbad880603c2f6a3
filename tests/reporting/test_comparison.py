"""The review's tables from results: everybody has a place, fronts by definition, faults by their threshold."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from cmri_lib.reporting import comparison, comparison_plots, review
from cmri_lib.reporting.primary_tests import ANATOMY, HEARTS


def scores(*rows: tuple[str, str, float], conditioning: str = "none") -> pd.DataFrame:
    better = {ANATOMY: "lower", HEARTS: "higher", "seconds_per_image": "lower"}
    axes = {ANATOMY: "fidelity", HEARTS: "anatomy", "seconds_per_image": "cost"}
    return pd.DataFrame([{"system": system, "family": "GAN", "conditioning": conditioning, "axis": axes[metric], "metric": metric,
                          "value": value, "low": value - 0.01, "high": value + 0.01, "floor": 0.9 if metric == HEARTS else 0.0,
                          "ceiling": 1.0, "better": better[metric], "n": 9} for system, metric, value in rows])


def test_every_system_has_a_place_and_every_claim_a_question() -> None:
    assert comparison.PLACES.keys() == review.SYSTEMS.keys()
    families, conditions = map(set, zip(*comparison.PLACES.values()))
    assert families == set(review.FAMILIES) and conditions == set(comparison.CONDITIONS)
    asked = set(itertools.chain(*(question.claims for question in comparison.QUESTIONS.values())))
    assert set(review.CLAIMS) - asked == {"F4", "E1"}, "translation and speed belong to no question"
    table = comparison.taxonomy(scores(("U2 DCGAN", ANATOMY, 0.1)))
    assert list(table.loc[table["measured"], "id"]) == ["U2"] and len(table) == 29
    comparison_plots.taxonomy(table)


def test_a_system_reports_an_axis_if_it_has_a_finite_score_there() -> None:
    known = scores(("U2 DCGAN", ANATOMY, 0.1), ("U3 WGAN-GP", ANATOMY, np.nan), ("flow none", HEARTS, 0.5), ("C2 SPADE", HEARTS, 0.4))
    share = comparison.completeness(known).set_index(["of", "axis"])["share"]
    ours = share["systems of this study"]
    assert ours["fidelity"] == ours["anatomy"] == 1 / 29 and ours["privacy"] == 0 and share["reviewed studies", "privacy"] == 0.14
    comparison_plots.completeness(comparison.completeness(known))


def test_a_front_is_what_nobody_beats() -> None:
    losses = np.array([[1, 4], [2, 2], [4, 1], [3, 3], [1, 5], [2, 2], [np.nan, 0]], float)
    assert list(comparison.on_front(losses)) == [True, True, True, False, False, True, False]
    rng = np.random.default_rng(0)
    some = rng.random((40, 3))
    assert list(comparison.on_front(some)) == [not any((b <= a).all() and (b < a).any() for b in some) for a in some]
    assert (comparison.on_front(np.exp(some)) == comparison.on_front(some)).all(), "only the order counts"


def test_fronts_know_which_direction_is_better_and_leave_out_systems_without_hearts() -> None:
    table = scores(*((s, ANATOMY, v) for s, v in (("U1 VAE", 0.3), ("U2 DCGAN", 0.1), ("U3 WGAN-GP", 0.05))),
                   *((s, HEARTS, v) for s, v in (("U1 VAE", 0.9), ("U2 DCGAN", 0.8), ("U3 WGAN-GP", 0.1))))
    found = comparison.fronts(table).set_index("system")
    assert list(found.index) == ["U1 VAE", "U2 DCGAN"] and found["front"].all(), "one is nearer, the other has more hearts"
    worse = comparison.fronts(pd.concat([table, scores(("U4 PG", ANATOMY, 0.35), ("U4 PG", HEARTS, 0.85))])).set_index("system")
    assert not worse.loc["U4 PG", "front"]
    assert comparison.fronts(table[:1]).empty
    comparison_plots.fronts(worse.reset_index())
    comparison_plots.fronts(comparison.fronts(table[:1]))


def test_a_fault_is_seen_at_the_least_strength_that_lies_beyond_real_groups() -> None:
    rows = [("kid", "blur", 0.5, False), ("kid", "blur", 1.0, True), ("kid", "torn", 0.5, False), ("kid", "torn", 1.0, False),
            ("mmd", "blur", 0.5, True), ("mmd", "blur", 1.0, True), ("mmd", "torn", 0.5, True), ("mmd", "torn", 1.0, False)]
    found = comparison.faults_seen(pd.DataFrame(rows, columns=["metric", "corruption", "strength", "beyond"])).set_index("metric")
    assert list(found.index) == ["mmd", "kid"] and list(found["share"]) == [1.0, 0.5]
    assert found.loc["mmd", "sees"] == "blur (0.5), torn (0.5)" and found.loc["kid", "sees"] == "blur (1)"
    assert found.loc["kid", "blind to"] == "torn"


def test_an_answer_names_verdicts_leaders_and_what_was_not_measured() -> None:
    question = comparison.Question("?", ("F1", "F2"), (ANATOMY, HEARTS), ())
    table = pd.concat([scores(("U1 VAE", ANATOMY, 0.3), ("U2 DCGAN", ANATOMY, 0.31), ("U3 WGAN-GP", ANATOMY, 0.5)),
                       scores(("C2 SPADE", ANATOMY, 0.1), conditioning="mask")])
    claims = pd.DataFrame({"claim": ["F1", "F1"], "primary": [False, True], "verdict": ["supported", "undecided"]})
    first, second, third = comparison.answer(question, table, claims)
    assert first == "F1 undecided; F2 not tested."
    assert "unconditional U1 VAE 0.300 [0.290, 0.310], whose interval 1 of 2 others overlap" in second
    assert "conditional C2 SPADE 0.100" in second and "real images 0.000" in second and third.endswith("not measured.")
