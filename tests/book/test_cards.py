"""Cards say what the code and the results say, for every cohort and family; the checklist leads somewhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from test_interactive import ROOT, results

from cmri_lib.book import cards
from cmri_lib.book.links import Links
from cmri_lib.cohort.data_sets import DATA_SETS
from cmri_lib.cohort.splits import load_split
from cmri_lib.config.study import open_study
from cmri_lib.systems.register import SYSTEMS

STUDY = open_study("smoke", "phantom", ROOT)


def test_every_cohort_and_every_family_has_a_card() -> None:
    assert set(cards.typed()["cohorts"]) == set(DATA_SETS)
    assert set(cards.typed()["families"]) == {one.family for one in SYSTEMS.values()}


@pytest.mark.parametrize("name", DATA_SETS)
def test_the_card_of_a_cohort_has_its_terms_and_its_split(name: str) -> None:
    card = cards.cohort_card(STUDY, name)
    assert card["terms"] == DATA_SETS[name].terms and card["intended use"] and card["limits"]
    if name in ("phantom", "acdc", "mnms"):
        assert card["split of this study"] == load_split(name)["split"].value_counts().to_dict()
    assert ("cohort.add" in card["brought in by"]) == (name != "phantom")


def test_the_card_of_a_family_has_its_systems_and_what_was_measured() -> None:
    card = cards.family_card(STUDY, "GAN", results())
    assert {"U2 DCGAN", "U3 WGAN-GP"} <= set(card["systems"]) and "U1 VAE" not in card["systems"]
    assert card["systems"]["U2 DCGAN"] == {"mmd_anatomy": 0.02, "c2st_image": 0.8} and card["systems"]["C1 Pix2Pix"] == {}


def test_pages_and_their_json_say_the_same(tmp_path: Path) -> None:
    made = cards.pages(STUDY, results(), Links(ROOT), tmp_path)
    families = json.loads((tmp_path / f"{cards.FAMILIES}.json").read_text())
    for family, card in families.items():
        assert card["limits"] in made[cards.FAMILIES] and all(name in made[cards.FAMILIES] for name in card["systems"]), family
    for card in json.loads((tmp_path / f"{cards.COHORTS}.json").read_text()).values():
        assert all(str(card[key]) in made[cards.COHORTS] for key in ("name", "terms", "source", "where", "limits"))
    assert cards.trainings(STUDY) in made[cards.CHECKLIST] and "{" not in made[cards.CHECKLIST]
    rows = re.findall(r"^\| (.+) \|$", made[cards.CHECKLIST], re.MULTILINE)
    assert len(rows) > 30 and all(pd.Series(row.split(" | ")).str.strip().ne("").all() or row.startswith("**") for row in rows)


def test_the_checklist_says_how_often_the_study_trains() -> None:
    fidelity = replace(STUDY.params.fidelity, repeated=("U1 VAE", "U9 MaskGIT"), seeds=4, ablation_seeds=1)
    several = replace(STUDY, params=replace(STUDY.params, fidelity=fidelity))
    assert cards.trainings(several) == "4 of each of U1 VAE, U9 MaskGIT; one of most other generators"
    once = replace(several, params=replace(several.params, fidelity=replace(fidelity, seeds=1)))
    assert cards.trainings(once) == "One of each generator"


def test_the_terms_of_every_real_cohort_are_said_or_said_not_to_be_known() -> None:
    for name in ("mnms", "mnms2"):
        said = cards.cohort_card(STUDY, name)["terms"]
        assert "University of Barcelona" in said and "read their terms before use" in said
