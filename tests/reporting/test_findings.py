"""The findings: numbers are those of the tables, and a paragraph that they do not bear out is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmri_lib.errors import DataError
from cmri_lib.reporting import findings

ROOT = Path(__file__).parents[2]
COLUMNS = ["profile", "system", "metric", "value", "low", "high", "ceiling", "floor"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two systems in two profiles, a figure of one notebook, and two claims."""
    rows = [["overnight", "U1 VAE", "heart_valid", 0.8234, 0.789, 0.8617, 1.0, 0.75],
            ["laptop", "U1 VAE", "heart_valid", 0.1, 0.1, 0.1, 1.0, 0.0],
            ["overnight", "U2 DCGAN", "heart_valid", 0.7, 0.65, 0.75, 1.0, 0.65],
            ["overnight", "U2 DCGAN", "kid", 0.5, 0.4, 0.6, 1.0, 0.45]]
    gain = pd.DataFrame({"arm": ["a", "b", "b"], "value": [-0.0098, 0.03, 0.03], "low": [-0.017, 0.01, 0.01],
                         "high": [-0.0034, 0.05, 0.05], "correlation": [-1, 1, 1]})
    claims = pd.DataFrame({"claim": ["F1", "F2", "F2"], "dataset": "phantom", "profile": "overnight",
                           "test": ["a − b", "a − c", "b − c"], "primary": [True, True, False],
                           "effect": [0.1, 0.2, 0.3], "low": 0.0, "high": 1.0,
                           "verdict": "supported", "after Holm": ["undecided", "supported", None]})
    for name, table in (("results/phantom/06_fidelity.csv", pd.DataFrame(rows, columns=COLUMNS)),
                        ("figures/phantom/06/gain.csv", gain), ("results/claims.csv", claims)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(tmp_path / name, index=False)
    (tmp_path / "figures/phantom/06/empty.csv").write_text("\n")  # a run that had nothing to show
    return tmp_path


def written(root: Path, text: str) -> str:
    return findings.page(root, "overnight", text).strip()


SCORES = '{% set s = scores("phantom/06_fidelity") %}\n'


@pytest.mark.parametrize(("quoted", "expected"), [
    ('s["U1 VAE", "heart_valid"] | share', ".82"), ('s["U1 VAE", "heart_valid"] | share_ci', ".82 [.79, .86]"),
    ('s["U1 VAE", "heart_valid"].ceiling | share', "1.00"), ('s.among(metric="heart_valid").lowest()', "U2 DCGAN"),
    ('s.among(metric="heart_valid").order() | last', "U1 VAE"),
    ('s.among(metric="heart_valid").highest()', "U1 VAE"), ('s.among(metric="heart_valid").best() | share', ".82"),
    ('s.like("metric", "heart").above(0.7)', "['U1 VAE']"),
    ('s.like("metric", "heart").below(0.8)', "['U2 DCGAN']"),
    ('s.all_hold(0.5), s.like("metric", "kid").all_hold(0.5)', "(False, True)"),
    ('s.like("metric", "none").all_hold(0.5)', "False"), ('s.number("system")', "2"), ("s | length", "3"),
    ('s.among(metric="heart_valid").worst() | share', ".70"), ('s.like("metric", "none").all_above(0)', "False"),
    ("s.all_above(0.39), s.all_above(0.4)", "(True, False)"), ("s.all_below(0.87), s.all_below(0.86)", "(True, False)"),
    ("s.above_floor()", "['U1 VAE']")])
def test_numbers_are_those_of_the_table_and_the_profile(root: Path, quoted: str, expected: str) -> None:
    assert written(root, f"{SCORES}{{{{ {quoted} }}}}") == expected


def test_figures_and_claims_are_quoted(root: Path) -> None:
    text = '{% set f = figure("phantom/06/gain", by="arm") %}\n'
    assert written(root, text + '{{ f["a"] | points_ci }}') == "−1.0 [−1.7, −0.3]"
    assert written(root, text + '{{ f["b"] | points }}') == "+3.0"  # equal rows count once
    assert written(root, '{{ figure("phantom/06/gain", by="arm", value="correlation")["a"] | share }}') == "−1.00"
    text = '{% set c = claims("phantom") %}\n'
    quoted = '{{ c["F2"] | share }} {{ c["F2"].after_holm }}, {{ c.verdict("F1") }}, {{ c.verdict("M1") }}'
    assert written(root, text + quoted) == ".20 supported, undecided, ·"
    assert written(root, text + '{{ c.tested("F2") }}, {{ c.tested("M1") or "nothing" }}') == "a − c, nothing"
    assert written(root, '{{ tests("phantom").like("test", "b − c").best() | share }}') == ".30"


def test_a_bullet_is_written_as_one(root: Path) -> None:
    first, *others = written(root, "- " + "word " * 60).splitlines()
    assert first.startswith("- word") and others and all(line.startswith("  word") for line in others)


def test_a_paragraph_that_results_do_not_bear_out_is_left_out_and_the_others_stay(root: Path) -> None:
    condition = 's["U1 VAE", "heart_valid"].low > s["U2 DCGAN", "heart_valid"].high'
    text = f'First.\n\n{SCORES}{{{{ provided({condition}, "the VAE is ahead") }}}}\nIt is ahead.\n\nLast.'
    assert written(root, text) == "First.\n\nIt is ahead.\n\nLast." and not findings.left_out(written(root, text))
    page = written(root, text.replace(">", "<"))
    assert findings.left_out(page) == ["these results do not show that the VAE is ahead"]
    assert page.startswith("First.\n\n*Left out here") and page.endswith("\n\nLast.")


@pytest.mark.parametrize(("quoted", "reason"), [
    ('{{ scores("phantom/06_fidelity")["U3", "kid"] | share }}', "results/phantom/06_fidelity.csv has 0 rows of U3, kid"),
    ('{{ scores("acdc/06_fidelity")["U3", "kid"] | share }}', "results/acdc/06_fidelity.csv is not there"),
    ('{{ figure("phantom/06/gain", by="arm", value="rank")["a"] }}', "figures/phantom/06/gain.csv has no column 'rank'"),
    ('{{ figure("phantom/06/empty", by="arm", group="x")["a"] | share }}', "figures/phantom/06/empty.csv is empty"),
    ('{{ figure("phantom/06/none", by="arm")["a"] | share }}', "figures/phantom/06/none.csv is not there"),
    ('{{ figure("phantom/07/gain", by="arm")["a"] }}', "notebook 07 has not been run on phantom in the profile overnight"),
    ('{{ scores("phantom/06_fidelity").among(metric="x").lowest() }}', "results/phantom/06_fidelity.csv has no such rows"),
    ('{{ scores("phantom/06_fidelity", by="system")["U2 DCGAN"] }}', "results/phantom/06_fidelity.csv has 2 rows of U2 DCGAN")])
def test_what_is_not_there_is_said(root: Path, quoted: str, reason: str) -> None:
    assert findings.left_out(written(root, quoted)) == [reason]


def test_a_slip_of_the_template_is_an_error(root: Path) -> None:
    with pytest.raises(DataError, match="findings.md .sytem.: no column 'sytem'"):
        written(root, '{{ scores("phantom/06_fidelity", sytem="U1 VAE") }}')


@given(st.floats(-1, 1, allow_nan=False))
def test_a_printed_number_is_its_own_rounded(value: float) -> None:
    for name, digits, factor in (("share", 2, 1), ("small", 4, 1), ("one", 1, 1), ("points", 1, 100), ("mm", 1, 1)):
        printed = findings.FORMATS[name](value)
        assert float(printed.replace("−", "-")) == pytest.approx(round(factor * value, digits), abs=0.51 * 10 ** -digits)
        assert not re.fullmatch(r"[−+][0.]*", printed), "a zero has no sign"


def test_no_number_of_a_result_is_typed() -> None:
    """A result has decimals; what is typed is a setting, or a number of patients."""
    prose = re.sub(r"{[{%].*?[%}]}", "", findings.TEMPLATE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert re.findall(r"(?<![\w/])[−+]?\d*\.\d+", prose) == []


def test_the_published_page_is_what_the_tables_give() -> None:
    published = (ROOT / "results" / "FINDINGS.md").read_text(encoding="utf-8")
    profile = re.search(r"profile `(\w+)`", published)[1]
    assert published == findings.page(ROOT, profile)
    if profile == "overnight":
        assert findings.left_out(published) == []


def test_the_readme_says_in_short_what_the_findings_say() -> None:
    found, readme = ((ROOT / name).read_text(encoding="utf-8") for name in ("results/FINDINGS.md", "README.md"))
    in_short = found.split("## In short\n\n")[1].split("\n\n## ")[0]
    assert readme.split("<!-- in short -->\n")[1].split("\n<!-- end -->")[0] == in_short
