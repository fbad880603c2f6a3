"""The page of a system: which picture shows it, what was attacked, what it took, and why a number is not there."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from test_interactive import ROOT

from cmri_lib.book import costs, facts, interactive, systems
from cmri_lib.book.facts import Results
from cmri_lib.book.links import Links
from cmri_lib.config.study import Study, open_study
from cmri_lib.reporting import review
from cmri_lib.reporting.results import CLAIM_COLUMNS, SCORE_COLUMNS
from cmri_lib.systems.register import SYSTEMS
from cmri_lib.training.checkpoint import write_tensors

STUDY = open_study("smoke", "phantom", ROOT)


def results(*rows: dict[str, object]) -> Results:
    known = {"dataset": "phantom", "profile": "smoke", "axis": "privacy", "n": 24, "seeds": 1, "better": "lower"}
    scores = pd.DataFrame([known | row for row in rows], columns=list(SCORE_COLUMNS))
    return Results(scores, pd.DataFrame(columns=[*CLAIM_COLUMNS, "after Holm"]), {})


def page(identity: str, found: Results, study: Study = STUDY) -> str:
    return systems.page(study, facts.card(study, identity, found), found, Links(study.root))


def part(text: str, heading: str) -> str:
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


# Pictures


@pytest.mark.parametrize("identity, figure", [
    ("C11", "16/grid"), ("C13", "10/source_domain"), ("C17", "14/samples"), ("C18", "12/samples_c18"), ("C19", "14/rebuilt")])
def test_a_figure_of_one_system_alone_is_shown_whole(identity: str, figure: str) -> None:
    shown = re.findall(r'<img src="\.\./(figures/[^"]+)"', page(identity, results()))
    assert shown == [f"figures/phantom/{figure}.png"]


def test_a_system_among_others_is_cut_out_of_their_figure() -> None:
    text = page("C12", results())
    assert re.findall(r'aria-label="([^"]+)"', text) == ["Samples: C12 ablated-mask diffusion"] and "<img" not in text


def test_rows_that_name_no_system_say_nothing_of_whose_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "figures" / "phantom" / "12"
    folder.mkdir(parents=True)
    study = replace(STUDY, root=tmp_path)
    for name in ("samples", "samples_c18"):
        Image.new("RGB", (80, 40)).save(folder / f"{name}.png")
        pd.DataFrame({"row": ["real", "private"]}).to_csv(folder / f"{name}.csv", index=False)
    card = {"id": "C18", "name": "RDP-CGAN"}
    assert "12/samples_c18.png" in systems._samples(study, card, Links(tmp_path), "systems/C18.html")
    assert "No figure" in systems._samples(study, card | {"id": "C3"}, Links(tmp_path), "systems/C3.html")


# One's own


def test_a_system_of_ones_own_is_in_the_tables_and_has_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("X1 my flow", "X1 my flow, larger", "a cell of some design"):
        monkeypatch.setitem(SYSTEMS, name, replace(SYSTEMS["U10 FM"], id=name))
    assert list(facts.identities().items()) == [*review.SYSTEMS.items(), ("X1", "my flow")]
    found = results({"system": "X1 my flow", "metric": "mmd_anatomy", "value": 0.5})
    text = page("X1", found)
    assert text.startswith("# X1 my flow\n") and facts.UNTYPED["idea"] in text and "X1 my flow, larger" in text
    assert 'href="X1.html"' in systems.index(STUDY, found) and "\nX1\n" in systems.index(STUDY, found)
    assert "X1 my flow" in interactive.scoreboard(STUDY, found)
    assert systems._named("X1 my flow beside C12, a T1 map") == ["X1", "C12"]


# Attacks


def test_attacks_without_a_report_stand_on_the_page_with_their_controls() -> None:
    private, null = "C18 RDP-CGAN, 30 patients, epsilon = 1", "C18 RDP-CGAN, 30 patients, epsilon = inf, null: hold-out"
    found = results({"system": private, "metric": "attack_auc_critic", "value": 0.61, "low": 0.5, "high": 0.7},
                    {"system": private, "metric": "attack_auc_max_critic", "value": 0.97, "low": 0.9, "high": 1.0},
                    {"system": private, "metric": "epsilon_rdp", "value": 0.99},
                    {"system": null, "metric": "attack_auc_critic", "value": 0.42, "low": 0.3, "high": 0.6})
    text = part(page("C18", found), "Privacy")
    assert f"| {private} | phantom | 0.61 [0.50, 0.70] | 0.99 |" in text
    assert f"| {null} | phantom | 0.42 [0.30, 0.60] | · |" in text
    assert systems.NOT_ATTACKED not in text and "0.97" not in text


def test_an_attack_that_a_report_tells_of_is_not_told_twice() -> None:
    rows = [{"system": name, "dataset": cohort, "metric": "attack_auc_loss", "value": 0.61, "low": 0.5, "high": 0.7}
            for name in ("U6 DDPM", "U6 DDPM, null: hold-out") for cohort in ("phantom", "another")]
    text = part(page("U6", results(*rows)), "Privacy")
    assert "u6-ddpm.html" in text and "| U6 DDPM | another |" in text and "| U6 DDPM | phantom |" not in text


def test_what_was_not_attacked_is_said_not_to_be() -> None:
    assert part(page("C12", results()), "Privacy").strip() == systems.NOT_ATTACKED


# Costs


def trained(root: Path, folder: str, steps: int, device: str = "cpu") -> None:
    place = root / "trainings" / "phantom" / "smoke" / folder
    write_tensors(place / "weights.safetensors", {"w": torch.zeros(1)}, {"device": device})
    pd.DataFrame({"step": [1, steps], "images": [8, 8 * steps], "seconds": [0.1, steps / 10]}).to_csv(place / "log.csv")


def test_logs_stand_in_for_costs_that_no_table_has(tmp_path: Path) -> None:
    for place, steps in (("kl-18-patients-0d4337", 20), ("public-c18-rdp-cgan-18-patients-0d4337", 70),
                         ("c18-rdp-cgan-30-patients-2c805e-epsilon-inf", 50),
                         ("c18-rdp-cgan-30-patients-2c805e-epsilon-10", 40), ("c18-rdp-cgan-30-patients-2c805e-epsilon-3", 30),
                         ("c18-rdp-cgan-two-30-patients-2c805e", 99),
                         ("private-u10-fm-30-patients-2c805e-epsilon-3", 98)):
        trained(tmp_path, f"differential_privacy/{place}", steps, "NVIDIA H200" if steps == 40 else "cpu")
    found = results({"system": "C18 RDP-CGAN, 30 patients, epsilon = inf", "metric": "epsilon_lower", "value": 0.3})
    text = costs.section(replace(STUDY, root=tmp_path), {"id": "C18"}, found)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")][2:]
    assert [row[1] for row in rows] == ["20", "70", "30", "40", "50"]
    assert [row[2:] for row in rows[2:4]] == [["240", "3", "cpu"], ["320", "4", "NVIDIA H200"]]
    assert rows[0][0] == "first stage: kl, 18 patients" and rows[-1][0] == "C18 RDP-CGAN, 30 patients, epsilon = inf"


def test_parameters_are_counted_where_no_cohort_changes_their_number() -> None:
    built = facts.variants("U6")[0].build(STUDY.params, facts.EVERYTHING, 0)
    own, = facts.variants("C13")  # the network of U6
    assert costs.parameters(STUDY, own) == sum(p.numel() for p in built.parameters())
    by_vendor, = facts.variants("C15")
    assert costs.parameters(STUDY, by_vendor) is None


def test_measured_costs_say_why_a_time_is_missing() -> None:
    row = {"system": "U6 DDPM", "axis": "cost", "metric": "images_seen", "value": 25600.0}
    text = costs.section(STUDY, {"id": "U6"}, results(row))
    assert "25,600" in text and costs.OTHER_MACHINE in text and "dvc pull" not in text
    timed = [row | {"metric": metric, "value": 1.0} for metric in facts.COSTS if metric != "images_before"]
    assert costs.OTHER_MACHINE not in costs.section(STUDY, {"id": "U6"}, results(*timed)), "another number is missing"


def test_several_variants_without_costs_are_named_together(tmp_path: Path) -> None:
    for folder in ("u10-fm", "u10-ot-fm"):
        trained(tmp_path, f"flow/{folder}", 20)
    text = costs.section(replace(STUDY, root=tmp_path), {"id": "U10"}, results())
    assert "**U10 OT-FM** and **U10 FM**" in text or "**U10 FM** and **U10 OT-FM**" in text


def test_it_is_said_whether_a_training_has_finished(tmp_path: Path) -> None:
    study = replace(STUDY, root=tmp_path)
    assert "finished?" not in costs.section(study, {"id": "U10"}, results())
    file = tmp_path / "figures/phantom/06/last_doubling.csv"
    file.parent.mkdir(parents=True)
    file.write_text("system,metric,before,value,low,high,finished\nU1 VAE,mmd_anatomy,1,1,1,1,settled\n"
                    "U10 FM,mmd_anatomy,0.0063,-0.0032,-0.0079,0.0005,cannot be seen\n", encoding="utf-8")
    text = costs.section(study, {"id": "U10"}, results())
    assert "| 0.0063 | -0.0032 [-0.0079, +0.0005] | cannot be seen |" in text and "settled |" not in text
    assert "finished?" not in costs.section(study, {"id": "C1"}, results())


# Nothing is left open


@pytest.fixture(scope="module")
def published() -> tuple[Study, Results]:
    study = open_study("overnight", "phantom", ROOT)
    return study, facts.results_of(ROOT)


@pytest.mark.parametrize("identity", review.SYSTEMS)
def test_no_published_page_leaves_anything_open(identity: str, published: tuple[Study, Results]) -> None:
    study, found = published
    text = page(identity, found, study)
    assert 'class="picture' in text and systems.NOT_MEASURED not in text
    ours = text.split("### Made of")[0] + part(text, "Scores") + part(text, "What it took")
    assert not re.search(r"not yet|to do\b", ours, re.IGNORECASE)
    for heading in ("Scores", "Privacy", "What it took", "Claims", "Training"):
        assert part(text, heading).strip(), heading


def test_a_system_without_a_number_in_the_table_of_all_says_how_it_is_judged(published: tuple[Study, Results]) -> None:
    text = systems.index(*published)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| <a")]
    empty = {re.search(r">(\w+)</a>", row[0])[1] for row in rows if row[3:] == ["·", "·", "·", "· |"]}
    assert empty == {"C4", "C10", "C11", "C13", "C18"}
    assert empty <= {identity for identity, one in facts.ideas().items() if "judged" in one}
    assert all(one["judged"] in text for one in facts.ideas().values() if "judged" in one)
