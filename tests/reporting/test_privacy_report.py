"""The page on a system's privacy: what it says follows from the facts, and a broken audit never sounds like a clean one."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from cmri_lib.reporting import metrics, privacy_report
from cmri_lib.reporting.privacy_metrics import ATTACKS


def attack(name: str, auc: float, low: float, power: bool = True) -> dict:
    return {"attack": name, "auc": auc, "low": low, "high": min(1, auc + 0.1), "tpr1": 0.1, "power": power,
            "control": 0.97,
            "null": 0.5}


def facts(**changes: object) -> dict:
    found = {"system": "U6 DDPM", "dataset": "phantom", "profile": "laptop", "verdict": "sound", "trainings": 1,
             "members": 24, "nonmembers": 24,
             "slices_each": 2, "strongest": "loss", "named": 3,
             "attacks": [attack("loss", 0.55, 0.45), attack("sima", 0.5, 0.4)],
             "blind": 0.48, "samples": 64, "near_copies": [0.02, 0.0, 0.05, 0.01],
             "near_copy_excess": [0.0, -0.02, 0.02],
             "swapped_share": [0.5, 0.4, 0.6], "suspects": 1, "planted": {"exact": 1.0, "mirrored": 0.95}}
    return found | changes


def test_a_sound_audit_without_a_finding_says_what_was_not_found() -> None:
    text = privacy_report.page(facts())
    assert "No attack with power" in text.split("**")[1] and "private" not in text.split("**")[1]
    assert "| denoising loss | 0.55 | 0.45 to 0.65 | 10% | 0.97 |" in text
    assert "1% of 24 non-members are less than one" in text and "mirrored 95%" in text


@pytest.mark.parametrize(("change", "words"), [
    ({"verdict": "broken: the null fails"}, "This audit is broken: the null fails"),
    ({"verdict": "broken: sima tells hold-out patients apart"},
     "This audit is broken: SimA tells hold-out patients apart"),
    ({"verdict": "broken: x", "attacks": [attack("loss", 0.9, 0.8)]}, "This audit is broken"),
    ({"attacks": [attack("loss", 0.8, 0.7)]}, "leaks: denoising loss tells members from strangers"),
    ({"near_copy_excess": [0.2, 0.1, 0.3]}, "it hands out near copies"),
])
def test_the_first_line_is_the_finding(change: dict, words: str) -> None:
    assert words in privacy_report.headline(facts(**change))


def test_one_attack_of_many_may_stand_out_by_chance() -> None:
    crowd = [attack(f"other {k}", 0.5, 0.4) for k in range(10)]
    alone = privacy_report.headline(facts(attacks=[attack("pia", 0.64, 0.51), *crowd]))
    assert alone.startswith("Alone PIA would") and "leaks" not in alone
    assert "leaks: PIA tells" in privacy_report.headline(facts(attacks=[attack("pia", 0.64, 0.51)]))
    assert "leaks: PIA tells" in privacy_report.headline(facts(attacks=[attack("pia", 0.8, 0.7), *crowd]))


def test_few_trainings_are_weaker_evidence_than_their_interval_of_one_would_be() -> None:
    """Two half-widths above guessing: with one training enough among twenty attacks, with the two degrees of freedom of three
    trainings not."""
    crowd, seen = [attack(f"other {k}", 0.5, 0.4) for k in range(19)], attack("pia", 0.7, 0.6)
    assert "leaks: PIA tells" in privacy_report.headline(facts(attacks=[seen | {"df": None}, *crowd]))
    assert privacy_report.headline(facts(attacks=[seen | {"df": 2.0}, *crowd])).startswith("Alone PIA would")


def test_an_attack_without_power_is_no_finding_and_is_named() -> None:
    weak = facts(attacks=[attack("sima", 0.8, 0.7, power=False)])
    assert "No attack with power" in privacy_report.headline(weak)
    assert "Without power, because they do not even find the control: SimA" in privacy_report.page(weak)


def test_several_trainings_are_mentioned() -> None:
    assert "trained" not in privacy_report.page(facts()).split("## With what power")[0]
    assert "was trained 3 times" in privacy_report.page(facts(trainings=3)).split("## With what power")[0]


def test_page_and_json_are_written(tmp_path) -> None:
    file = privacy_report.write(SimpleNamespace(results=tmp_path), facts())
    assert file.name == "u6-ddpm.md" and file.read_text(encoding="utf-8").startswith("# Privacy of U6 DDPM")
    assert json.loads(file.with_suffix(".json").read_text(encoding="utf-8")) == facts()


def test_every_attack_has_a_title() -> None:
    for name in ATTACKS:
        for statistic in ("auc", "auc_max", "tpr1", "tpr5"):
            assert metrics.known(f"attack_{statistic}_{name}") and ATTACKS[name] in metrics.title(f"attack_{statistic}_{name}")
    assert not metrics.known("attack_auc_wizardry")
    assert metrics.title("near_copy_rate_copy").endswith("the copy detector's space")


def test_what_is_found_of_single_members_is_said() -> None:
    attacks = [attack("loss", 0.55, 0.45), {**attack("sima", 0.5, 0.4), "tpr1": 0.5}]
    text = privacy_report.page(facts(members=50, attacks=attacks))
    assert "SimA finds most members: 25 of 50. With denoising loss" in text and "3 of 50 members can be named" in text
    assert "can be named" not in privacy_report.page(facts(named=None))
    few = privacy_report.page(facts(nonmembers=14, named=0))
    assert "Among 14 strangers nobody stands out enough" in few and "can be named" not in few
