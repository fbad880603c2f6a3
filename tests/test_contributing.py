"""The guide for contributors: examples can be read at one glance, and every one of them is run by some test."""

from __future__ import annotations

import re
from pathlib import Path

from contributing import example, examples

TESTS = Path(__file__).parent
#: Lines of an example, at most; a whole generator with its training takes a few more.
LONGEST, LONGEST_GENERATOR = 30, 40


def test_examples_are_short() -> None:
    for code in examples():
        lines = code.splitlines()
        assert len(lines) <= (LONGEST_GENERATOR if "from diffusers" in code else LONGEST), lines[0]
        assert max(map(len, lines)) <= 128, lines[0]


def test_every_example_is_run_by_a_test() -> None:
    found = [word for file in TESTS.rglob("test_*.py")
             for word in re.findall(r"""example\((?:"([^"]+)"|'([^']+)')""", file.read_text(encoding="utf-8"))]
    assert sorted({example(double or single) for double, single in found}) == sorted(examples())
