"""The page of results says what the tables say."""

from __future__ import annotations

import pandas as pd

from cmri_lib.reporting import readme as tables
from cmri_lib.reporting import review


def score(system: str, metric: str, value: float, dataset: str = "phantom", profile: str = "laptop",
          **more: object) -> dict:
    conditioning = "mask (concat)" if system.startswith("C") or "mask" in system else "none"
    return {"dataset": dataset, "profile": profile, "system": system, "conditioning": conditioning,
            "metric": metric, "value": value, "low": value - 0.1, "high": value + 0.1, "floor": 0.1, "ceiling": 0.9,
            "better": "lower", **more}


SCORES = pd.DataFrame([
    score("U6 DDPM", "kid_study", 0.2), score("U10 FM", "kid_study", 0.1), score("real", "kid_study", 0.5),
    score("U10 FM", "images_seen", 2560, floor=float("nan")), score("C1 Pix2Pix", "kid_study", 0.9),
    score("C1 Pix2Pix", "dice_mean", 0.8126, better="higher"), score("flow none", "kid_study", 0.0),
    score("U10 FM + mask", "kid_study", 0.3), score("U6 DDPM", "kid_study", 7.0, profile="smoke"),
    score("U1 VAE", "kid_study", 17.0, dataset="acdc")])
CLAIMS = pd.DataFrame([
    {"claim": "M1", "dataset": d, "profile": "laptop", "test": t, "effect": e, "low": e - 1, "high": e + 1,
     "verdict": v, "primary": p, "p": 0.03, "unit": "share", "after Holm": "undecided" if p else ""}
    for d, t, e, v, p in (("acdc", "a | b", 0.25, "undecided", False), ("phantom", "a | b", -2.0, "not supported", False),
                          ("phantom", "kid_study, C2 − C1", 3.0, "supported", False),
                          ("phantom", "c: Dice above 0", 2.0, "supported", True))])
MINE = SCORES[(SCORES["dataset"] == "phantom") & (SCORES["profile"] == "laptop")]


def test_systems_stand_in_order_of_kid_below_real_images() -> None:
    shown = tables.systems(MINE, "Unconditional systems", ["kid_study", "images_seen"])
    assert list(shown["system"]) == ["*real images*", "U10 FM", "U6 DDPM"], "no cells of the ablation"
    assert list(shown["images seen ↓"]) == ["·", "2,560", "·"]
    assert list(shown["KID ↓"]) == ["0.50", "0.10", "0.20"]


def test_the_headline_leads_and_systems_without_hearts_are_named() -> None:
    more = pd.DataFrame([score("U10 FM", "mmd_anatomy", 0.3), score("U6 DDPM", "mmd_anatomy", 0.1),
                         score("U10 FM", "heart_valid", 0.2, better="higher", floor=0.9)])
    shown = tables.systems(pd.concat([MINE, more]), "Unconditional systems", ["mmd_anatomy"])
    assert list(shown["system"]) == ["*real images*", "U6 DDPM", "U10 FM (no hearts)"]
    assert list(shown["anatomy (MMD) ↓"])[1:] == ["0.100 [0.000, 0.200]", "0.300 [0.200, 0.400]"]


def test_the_page_says_where_valid_hearts_cannot_be_judged() -> None:
    hearts = [score(s, "heart_valid", 0.0, better="higher", floor=0.25) for s in ("U10 FM", "real")]
    page, silent = (tables.page(pd.concat([MINE, pd.DataFrame(rows)]), CLAIMS, "laptop") for rows in (hearts, []))
    note = "## Unconditional systems: phantom\n\nValid hearts cannot be judged: the frozen segmenter finds one in only 25 % of"
    assert note in page and "(no hearts) |" not in page and "cannot be judged:" not in silent


def test_conditional_systems_say_on_what_and_real_images_what_they_score() -> None:
    shown = tables.systems(MINE, "Conditional systems", ["dice_mean"])
    assert list(shown["system"]) == ["*real images*", "C1 Pix2Pix"]
    assert list(shown["condition"]) == ["·", "mask (concatenation)"]
    cells = list(shown["Dice with the mask ↑"])
    assert cells == ["0.90", "0.81 [0.71, 0.91]"], "the ceiling of adherence is what real images score"
    assert "U10 FM + mask" in set(tables.systems(MINE, "Conditional systems", ["kid_study"])["system"])


def test_pairs_that_two_metrics_order_differently_are_listed() -> None:
    values = {"a": (0.9, 0.7), "b": (0.8, 0.8), "c": (0.5, 0.6), "d": (0.4, None), "real": (0.0, 1.0)}
    rows = [{"system": s, "metric": m, "value": v}
            for s, pair in values.items() for m, v in zip(("x", "y"), pair) if v is not None]
    agreed, swapped = review.rank_agreement(pd.DataFrame(rows), "x", "y")
    assert abs(agreed - 0.5) < 1e-12, "of three systems one pair of neighbours changes places: 1 − 6·2/(3·8)"
    assert swapped.iloc[:, :2].to_numpy().tolist() == [["a", "b"]]
    assert abs(swapped.iloc[0, 2:].astype(float) - 0.1).max() < 1e-12
    none, nobody = review.rank_agreement(pd.DataFrame(rows), "x", "z")
    assert none != none and nobody.empty


def test_a_cohort_of_which_an_audit_alone_has_been_run_has_no_empty_tables() -> None:
    audit = MINE.assign(metric="attack_auc_loss", axis="privacy", dataset="acdc")
    page = tables.page(pd.concat([MINE, audit]), CLAIMS, "laptop")
    assert "systems: phantom" in page and "systems: acdc" not in page


def test_the_page_holds_every_cohort_of_the_profile_and_no_other() -> None:
    page = tables.page(SCORES, CLAIMS, "laptop")
    for dataset in ("phantom", "acdc"):
        assert page.count(f"## Unconditional systems: {dataset}\n") == 1
    assert "| C1 Pix2Pix | mask (concatenation) | 0.90 | 0.81 [0.71, 0.91] |" in page
    assert "| U1 VAE | 17.0 |" in page
    assert "| 7.00 |" not in page and "-0.00" not in page
    assert "| M1 | a \\| b | 0.25 [-0.75, 1.25] undecided | -2.00 [-3.00, -1.00] not supported |" in page
    assert "| M1 | KID, C2 − C1 | · | 3.00 [2.00, 4.00] supported |" in page
    row = (f"| M1: {review.CLAIMS['M1']} | phantom | c: Dice above 0 | 2.00 [1.00, 3.00] | share | 0.03 | "
           "supported | undecided |")
    assert page.count("c: Dice above 0") == 1 and row in page.split("exploratory")[0]
