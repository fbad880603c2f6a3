"""The page of results says what the tables say."""

from __future__ import annotations

import pandas as pd

from cmri_lib.reporting import readme as tables


def score(system: str, metric: str, value: float, dataset: str = "phantom", profile: str = "laptop", **more: object) -> dict:
    return {"dataset": dataset, "profile": profile, "system": system, "conditioning": "mask (concat)", "metric": metric,
            "value": value, "low": value - 0.1, "high": value + 0.1, **more}


SCORES = pd.DataFrame([
    score("U6 DDPM", "kid_study", 0.2), score("U10 FM", "kid_study", 0.1), score("real", "kid_study", 0.5),
    score("U10 FM", "images_seen", 2560), score("C1 Pix2Pix", "kid_study", 0.9), score("C1 Pix2Pix", "dice_mean", 0.8126),
    score("flow labels concat", "kid_study", 0.0), score("U6 DDPM", "kid_study", 7.0, profile="smoke"),
    score("U1 VAE", "kid_study", 17.0, dataset="acdc")])
CLAIMS = pd.DataFrame([
    {"claim": "M1", "dataset": d, "profile": "laptop", "test": "a | b", "effect": e, "low": e - 1, "high": e + 1, "verdict": v}
    for d, e, v in (("acdc", 0.25, "undecided"), ("phantom", -2.0, "not supported"))])


def test_systems_stand_in_order_of_kid_below_real_patients() -> None:
    board = tables.systems(SCORES[SCORES["dataset"] == "phantom"].query("profile == 'laptop'"), "U", tables.UNCONDITIONAL)
    assert list(board["system"]) == ["*real against real*", "U10 FM", "U6 DDPM"], "cells of the ablation are no systems"
    assert list(board["images seen"]) == ["·", "2560", "·"]
    assert board["KID, study features"][1] == "0.10 [0.00, 0.20]"


def test_the_page_holds_every_cohort_of_the_profile_and_no_other() -> None:
    page = tables.page(SCORES, CLAIMS, "laptop")
    assert "## Unconditional systems: phantom" in page and "## Unconditional systems: acdc" in page
    assert "| C1 Pix2Pix | mask (concat) | 0.81 [0.71, 0.91] | · | 0.90 [0.80, 1.00] |" in page
    assert "| 7.00 [" not in page and "-0.00" not in page
    assert "| M1 | a \\| b | 0.25 [-0.75, 1.25] undecided | -2.00 [-3.00, -1.00] not supported |" in page
