"""Numbers computed again agree within a share of their interval; what is decided or counted agrees exactly."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pandas as pd
import pytest

from cmri_lib.reporting.agreement import OF_INTERVAL, OF_P, OF_VALUE, agreement
from cmri_lib.verify import main, report, verify

SCORES = pd.DataFrame({
    "system": ["U1 VAE", "U1 VAE", "U6 DDPM"], "metric": ["mmd_anatomy", "seconds_per_image", "mmd_anatomy"],
    "value": [0.2, 0.01, 0.1], "low": [0.1, 0.009, 0.08], "high": [0.3, 0.012, 0.12], "n": [20, 3, 20]})
NAME = Path("results/phantom/02_vae.csv")


def compared(**changes: object) -> object:
    """SCORES against a copy in which "row column" has another value."""
    again = SCORES.copy()
    for place, value in changes.items():
        row, column = place.split("_", 1)
        again.loc[int(row[1:]), column] = value
    return agreement(NAME, SCORES, again)


@pytest.mark.parametrize("share, holds", [(0.9, True), (1.1, False)])
def test_a_score_may_differ_by_a_share_of_its_interval(share: float, holds: bool) -> None:
    found = compared(r0_value=0.2 + share * OF_INTERVAL * 0.2)
    assert found.holds == holds and found.worst == pytest.approx(share)
    assert holds or ["U1 VAE · mmd_anatomy, value: 0.2 →" in row for row in found.exceeding] == [True]


def test_times_may_differ_and_counts_may_not() -> None:
    assert compared(r1_value=50.0, r1_high=60.0).holds
    assert [row.split(":")[0] for row in compared(r2_n=19).exceeding] == ["U6 DDPM · mmd_anatomy, n"]


def test_rows_are_told_by_their_words_and_a_new_verdict_is_another_row() -> None:
    assert agreement(NAME, SCORES, SCORES.iloc[::-1]).holds
    assert agreement(NAME, SCORES, SCORES.iloc[:2]).missing == ("U6 DDPM · mmd_anatomy",)
    claims = pd.DataFrame({"claim": ["F1"], "effect": [0.3], "low": [0.1], "high": [0.5], "verdict": ["supported"]})
    assert set(agreement(NAME, claims, claims.assign(verdict="undecided")).missing) == {"F1 · supported", "F1 · undecided"}
    assert agreement(NAME, claims, claims.drop(columns="low")).problem == "columns in one copy only: low"


@pytest.mark.parametrize("low, high, p, again", [(-1.2, 3.2, 0.35, 1e-9), (0.0, 9.0, 0.04, 0.1), (-1.2, 3.2, 1e-9, 0.35)])
def test_a_p_value_has_a_tolerance_of_its_own_and_not_that_of_the_interval(low: float, high: float, p: float, again: float
                                                                           ) -> None:
    claims = pd.DataFrame({"claim": ["F1"], "effect": [1.0], "low": [low], "high": [high], "p": [p]})
    assert [row.split(":")[0] for row in agreement(NAME, claims, claims.assign(p=again)).exceeding] == ["F1, p"]


def test_a_p_value_of_a_narrow_interval_may_differ_a_little() -> None:
    claims = pd.DataFrame({"claim": ["F1"], "effect": [0.01], "low": [0.005], "high": [0.015], "p": [0.040]})
    found = agreement(NAME, claims, claims.assign(p=0.044))
    assert found.holds and found.worst == pytest.approx(0.004 / OF_P)


def test_rows_of_which_a_word_is_missing_are_compared_in_their_order() -> None:
    table = pd.DataFrame({"sampler": ["ddim", None, None, None], "seconds": [None] * 4, "value": [0.1, 0.2, 0.3, 0.4]})
    same = agreement(Path("t.csv"), table, table.copy())
    assert same.holds and same.compared >= 4
    other = agreement(Path("t.csv"), table, table.assign(value=[0.1, 0.2, 0.9, 0.4]))
    assert not other.missing and len(other.exceeding) == 1 and "0.9" in other.exceeding[0]


def test_without_an_interval_size_and_spread_decide() -> None:
    drawn = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "y": [100.0, 100.0, 100.0, 100.0]})
    spread = drawn["x"].std(ddof=0)
    assert agreement(NAME, drawn, drawn.assign(x=drawn["x"] + 0.09 * spread)).holds

    assert len(agreement(NAME, drawn, drawn.assign(x=drawn["x"] + 0.11 * spread)).exceeding) >= 1
    assert agreement(NAME, drawn, drawn.assign(y=100 * (1 + 0.9 * OF_VALUE))).holds
    assert len(agreement(NAME, drawn, drawn.assign(y=100 * (1 + 1.1 * OF_VALUE))).exceeding) == 4
    assert not agreement(NAME, drawn, drawn.assign(y=[100.0, 100.0, 100.0, float("nan")])).holds
    empty = drawn.assign(y=float("nan"))
    assert agreement(NAME, empty, empty.copy()).holds, "nothing on both sides is the same"


def test_the_command_compares_with_the_last_commit_or_another_copy(tmp_path: Path, monkeypatch, capsys) -> None:
    copy, root = tmp_path / "copy", tmp_path / "root"
    for folder in (copy, root):
        (folder / NAME).parent.mkdir(parents=True)
        SCORES.to_csv(folder / NAME, index=False)
    monkeypatch.setattr("cmri_lib.verify.project_root", lambda: root)
    assert main([]) == 2 and "--against" in capsys.readouterr().err
    assert main(["--against", str(copy)]) == 0
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    SCORES.assign(value=[0.29, 0.01, 0.1]).to_csv(root / NAME, index=False)
    assert main(["--dataset", "phantom"]) == 1 and "U1 VAE · mmd_anatomy, value: 0.2 → 0.29" in capsys.readouterr().out
    assert main(["--dataset", "acdc"]) == 2
    SCORES[SCORES.columns[::-1]].to_csv(root / NAME, index=False)
    assert f"{NAME}: its columns are in another order" in report(verify(root))
    SCORES.iloc[1:].to_csv(root / NAME, index=False)
    assert "0 of 8 numbers differ by more than is allowed, 1 rows are in one copy only" in report(verify(root))
    (root / NAME).unlink()
    assert f"{NAME}: it was not made" in report(verify(root)) and not verify(root)[0].holds


def test_a_study_may_lie_below_the_top_of_its_repository(tmp_path: Path) -> None:
    (tmp_path / "sub" / NAME).parent.mkdir(parents=True)
    SCORES.to_csv(tmp_path / "sub" / NAME, index=False)
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (found,) = verify(tmp_path / "sub")
    assert found.file == NAME and found.holds and found.compared
