"""The worked examples of CONTRIBUTING.md, for tests that run them."""

from __future__ import annotations

import re
from pathlib import Path

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"


def examples() -> list[str]:
    """The Python blocks of the guide."""
    return re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def example(word: str) -> str:
    """The block that contains `word`; there must be one alone."""
    block, = (found for found in examples() if word in found)
    return block


def run_example(word: str, **names: object) -> dict[str, object]:
    """Run the block that contains `word`, in a module that knows `names`; returns all that it knows afterwards."""
    exec(compile(example(word), GUIDE.name, "exec"), names)
    return names
