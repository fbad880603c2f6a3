"""The review's tables from results: everybody has a place, fronts by definition, faults by their threshold."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from cmri_lib.reporting import comparison, comparison_plots, metrics, questions, review
from cmri_lib.reporting.metric_uses import USES
from cmri_lib.reporting.primary_tests import ANATOMY, HEARTS

ROOT = Path(__file__).parents[2]


def scores(*rows: tuple[str, str, float], conditioning: str = "none") -> pd.DataFrame:
    better = {ANATOMY: "lower", HEARTS: "higher", "seconds_per_image": "lower"}
    axes = {ANATOMY: "fidelity", HEARTS: "anatomy", "seconds_per_image": "cost"}
    return pd.DataFrame([{"system": system, "family": "GAN", "conditioning": conditioning, "axis": axes[metric],
                          "metric": metric, "value": value, "low": value - 0.01, "high": value + 0.01,
                          "floor": 0.9 if metric == HEARTS else 0.0, "ceiling": 1.0, "better": better[metric], "n": 9}
                         for system, metric, value in rows])


def test_every_system_has_a_place_and_every_claim_a_question() -> None:
    assert comparison.PLACES.keys() == review.SYSTEMS.keys()
    families, conditions = map(set, zip(*comparison.PLACES.values()))
    assert families == set(review.FAMILIES) and conditions == set(comparison.CONDITIONS)
    asked = set(itertools.chain(*(question.claims for question in questions.QUESTIONS.values())))
    assert set(review.CLAIMS) - asked == {"F4", "E1"}, "translation and speed belong to no question"
    table = comparison.taxonomy(scores(("U2 DCGAN", ANATOMY, 0.1)))
    assert list(table.loc[table["measured"], "id"]) == ["U2"] and len(table) == 29
    comparison_plots.taxonomy(table)


def test_a_system_reports_an_axis_if_it_has_a_finite_score_there() -> None:
    known = scores(("U2 DCGAN", ANATOMY, 0.1), ("U3 WGAN-GP", ANATOMY, np.nan), ("flow none", HEARTS, 0.5),
                   ("C2 SPADE", HEARTS, 0.4))
    share = comparison.completeness(known).set_index(["of", "axis"])["share"]
    ours = share["systems of this study"]
    assert (ours["fidelity"] == ours["anatomy"] == 1 / 29 and ours["privacy"] == 0
            and share["reviewed studies", "privacy"] == 0.14)
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
    axis = comparison_plots.fronts(worse.reset_index()).axes[0]
    assert "1\N{NO-BREAK SPACE}U2 DCGAN, 2\N{NO-BREAK SPACE}U1 VAE" in axis.get_xlabel() and "U4" not in axis.get_xlabel()
    assert {text.get_text() for text in axis.texts} == {"1", "2"}
    comparison_plots.fronts(comparison.fronts(table[:1]))


def test_a_fault_is_seen_at_the_least_strength_that_lies_beyond_real_groups() -> None:
    rows = [("kid", "blur", 0.5, False), ("kid", "blur", 1.0, True), ("kid", "torn", 0.5, False), ("kid", "torn", 1.0, False),
            ("mmd", "blur", 0.5, True), ("mmd", "blur", 1.0, True), ("mmd", "torn", 0.5, True), ("mmd", "torn", 1.0, False)]
    found = comparison.faults_seen(
        pd.DataFrame(rows, columns=["metric", "corruption", "strength", "beyond"])).set_index("metric")
    assert list(found.index) == ["mmd", "kid"] and list(found["share"]) == [1.0, 0.5]
    assert found.loc["mmd", "sees"] == "blur (0.5), torn (0.5)" and found.loc["kid", "sees"] == "blur (1)"
    assert found.loc["kid", "blind to"] == "torn" and found.loc["kid", "when to use"] == USES["kid"]


def test_the_strongest_attack_is_of_the_system_itself_and_ranks_patients() -> None:
    rows = [("U6", "attack_auc_loss", 0.6), ("U6", "attack_auc_pia", 0.7), ("U6", "attack_auc_max_pia", 0.9),
            ("U6", "attack_auc_blind", 0.95), ("U6", "attack_auc_lira", 0.99), ("U6", "attack_tpr1_pia", 1.0),
            ("U6, overfitted", "attack_auc_pia", 1.0), ("U9", "attack_auc_tokens", float("nan")),
            ("U1", "attack_auc_elbo", 0.4)]
    found = comparison.strongest_attacks(pd.DataFrame(rows, columns=["system", "metric", "value"])).set_index("system")
    assert found["value"].to_dict() == {"U6": 0.7, "U1": 0.4} and set(found["metric"]) == {comparison.STRONGEST}
    assert metrics.describe(comparison.STRONGEST).axis == "privacy"


def test_an_answer_names_verdicts_effects_leaders_and_what_was_not_measured() -> None:
    question = questions.Question("?", ("F1", "F2", "F3"), (ANATOMY, HEARTS), (), "Much.")
    table = pd.concat([scores(("U1 VAE", ANATOMY, 0.3), ("U2 DCGAN", ANATOMY, 0.31), ("U3 WGAN-GP", ANATOMY, 0.5)),
                       scores(("C2 SPADE", ANATOMY, 0.1), ("C17 Direct-FM", ANATOMY, 0.0), conditioning="mask")])
    claims = pd.DataFrame({"claim": ["F1", "F1", "F3"], "primary": [False, True, True], "test": ["a", "b", "c"],
                           "verdict": ["supported", "undecided", "supported"], "after Holm": ["", "undecided", "undecided"],
                           "effect": [1.0, -0.25, 0.5], "low": [0.0, -0.5, 0.25], "high": [2.0, 0.125, 0.75], "unit": "KID"})
    text = questions.answer(question, table, claims)
    assert "Of 3 claims that bear on it: 1 supported (F3); 1 undecided (F1); 1 not tested (F2)." in text
    assert f"- **F1, undecided**: *{review.CLAIMS['F1']}*. b: -0.25 [-0.5, 0.125] KID." in text
    assert "- **F3, supported alone, undecided after Holm**" in text and "F2," not in text
    assert "unconditional U1 VAE 0.300 [0.290, 0.310], whose interval 1 of 2 others overlap" in text
    assert ("conditional C2 SPADE 0.100" in text and "C17" not in text
            and "real images 0.000" in text and "not measured.\n" in text)
    assert text.endswith("**What stays open.** Much.")


def test_the_questions_ask_of_claims_metrics_and_figures_that_the_study_has() -> None:
    figures_drawn = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "notebooks").glob("*.py"))
    for question in questions.QUESTIONS.values():
        assert set(question.claims) <= set(review.CLAIMS)
        assert all(metrics.title(name) != name for name in question.metrics)
        assert all(f'"{name}"' in figures_drawn for name in question.figures)
