"""The repository keeps its own promises: pairing, floors, sizes, pins, no absolute paths, every figure declared."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
MODULES = sorted((ROOT / "cmri_lib").rglob("*.py"))
#: Floors of the library from the ground up; a module may import its own floor and those below.
FLOORS = {"errors": 0, "training": 1, "networks": 1, "cohort": 2, "measures": 3, "generators": 3, "study": 3, "privacy": 4,
          "figures": 5, "results": 5, "parameters": 5, "protocol": 6, "review": 6, "tables": 6, "run": 6, "curves": 7, "ablation": 7, "claims": 5, "train": 7, "side_by_side": 7, "__init__": 0}


def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+", line) for line in lines)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in (line.split("==") for line in lines)}


def dependencies() -> set[str]:
    text = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(r"(?:^dependencies|^test) = \[(.*?)\]", text, re.S | re.M)
    return {re.sub(r"[-_.]+", "-", re.split(r"[<>=]", d)[0]).lower() for part in lists for d in re.findall(r'"([^"]+)"', part)}


def test_the_lock_pins_every_dependency_and_is_what_runs() -> None:
    locked = pins()
    assert len(dependencies()) > 15 and dependencies() <= set(locked)
    for name in dependencies():
        assert importlib.metadata.version(name).split("+")[0] == locked[name], name


def test_conda_installs_the_same_versions() -> None:
    described = yaml.safe_load((ROOT / "environment.yml").read_text())
    packages = described["dependencies"]
    assert "conda-forge" in described["channels"]
    assert "python=3.11" in packages and ">=3.11,<3.12" in (ROOT / "pyproject.toml").read_text()
    # Everything else comes through pip, and from the lock itself: there is no second list to drift.
    assert [p for p in packages if isinstance(p, dict)] == [{"pip": ["-r requirements.lock"]}]
    assert set(p for p in packages if isinstance(p, str)) == {"python=3.11", "pip"}


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_paired_and_in_step(source: Path) -> None:
    script, notebook = jupytext.read(source), nbformat.read(source.with_suffix(".ipynb"), 4)
    assert [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in script.cells] == \
           [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in notebook.cells], "run: make notebooks"
    assert not any(c.get("outputs") for c in notebook.cells), "outputs belong into executed/"


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_follow_the_skeleton(source: Path) -> None:
    cells = jupytext.read(source).cells
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    for part in ("**Question.**", "## Check", "## Exercise", "## Limits"):
        assert part in prose, part
    code = [c for c in cells if c.cell_type == "code"]
    lines = [sum(1 for x in c.source.splitlines() if x.strip() and not x.strip().startswith("#")) for c in code]
    assert max(lines) <= 15, code[lines.index(max(lines))].source
    assert any("assert" in c.source for c in code) and any("solution" in c.metadata.get("tags", []) for c in code)


def test_every_published_figure_is_declared() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    declared = {next(iter(o)) if isinstance(o, dict) else o for s in stages.values() for o in s["outs"]}
    published = {name for n in NOTEBOOKS for name in re.findall(r'publish(?:_\w+)?\(study, "(\w+)"', n.read_text())}
    assert published and {f"figures/${{dataset}}/{name}.{end}" for name in published for end in ("png", "svg", "csv")} == \
        {o for o in declared if o.startswith("figures/")}


def test_stages_and_parameters_exist() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        assert set(stage["params"]) <= set(params), name
        for dep in stage["deps"]:
            assert "${" in dep or (ROOT / dep).exists(), dep


def test_floors_only_rest_on_those_below() -> None:
    for file in MODULES:
        floor = FLOORS.get(file.relative_to(ROOT / "cmri_lib").parts[0].removesuffix(".py"))
        assert floor is not None, f"{file.name} stands on no floor"
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else \
                [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name and name.startswith("cmri_lib."):
                    assert FLOORS[name.split(".")[1]] <= floor, f"{file.name} imports {name} from above"


def test_modules_can_be_read_in_one_sitting() -> None:
    for file in MODULES:
        text = file.read_text()
        assert len(text.splitlines()) <= 350, file.name
        assert ast.get_docstring(ast.parse(text)) or not text.strip(), f"{file.name} does not say what it is for"


def test_nothing_local_is_tracked() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    files = [ROOT / f for f in listed.stdout.split() if not f.startswith("store/")]
    for file in files:
        if file.suffix in (".py", ".md", ".yaml", ".yml", ".toml", ".csv", ".lock", ".ipynb", "") and file.is_file():
            text = file.read_text(encoding="utf-8", errors="ignore")
            assert not re.search(r"(?<![\w.:/])/(?:home|root|tmp|work|Users)/\w", text), f"absolute path in {file.name}"
        assert file.suffix not in (".nii", ".gz", ".safetensors", ".pt"), file.name
