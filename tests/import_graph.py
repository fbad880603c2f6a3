"""The imports of the library as a graph: who imports whom, at every level of its tree.

    python tests/import_graph.py              the folders of cmri_lib, from the ground up, each with what it imports
    python tests/import_graph.py measures     the same for what lies in cmri_lib/measures
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

LIBRARY = Path(__file__).parents[1] / "cmri_lib"
#: The library from the ground up: each imports only what stands before it. Above them stand commands, which nothing imports.
ORDER = ("errors", "training", "cohort", "networks", "phantom", "measures", "generators", "config", "privacy", "systems",
         "reporting", "experiments", "course", "book")


def imported_modules(file: Path) -> set[str]:
    """Dotted names of the library that a file imports; of ``from a import b`` both a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in found if name.split(".")[0] == LIBRARY.name}


def imports_between_children(package: Path) -> dict[str, set[str]]:
    """Child (a module, or a folder with all in it) of a package → the other children that it imports."""
    prefix = ".".join(package.relative_to(LIBRARY.parent).parts)
    children = {c.stem: [c] if c.is_file() else sorted(c.rglob("*.py")) for c in sorted(package.iterdir())
                if c.suffix == ".py" and c.stem != "__init__" or (c / "__init__.py").is_file()}
    graph = {}
    for child, files in children.items():
        names = {n.removeprefix(prefix + ".").split(".")[0] for f in files for n in imported_modules(f)
                 if n.startswith(prefix + ".")}
        graph[child] = (names & set(children)) - {child}
    return graph


def layers(graph: dict[str, set[str]]) -> list[list[str]]:
    """The children in layers: each imports only what stands in the layers before it. What is left of a circle comes last."""
    placed: list[list[str]] = []
    below: set[str] = set()
    while ready := sorted(c for c in graph if c not in below and graph[c] <= below):
        placed.append(ready)
        below |= set(ready)
    circle = sorted(set(graph) - below)
    return [*placed, circle] if circle else placed


if __name__ == "__main__":
    package = LIBRARY.joinpath(*sys.argv[1:])
    graph = imports_between_children(package)
    for floor, children in enumerate(layers(graph)):
        for child in children:
            print(f"{floor:2}  {child:<20} {', '.join(sorted(graph[child])) or '–'}")
