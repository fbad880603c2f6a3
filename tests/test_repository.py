"""The repository keeps its own promises: pairing, floors, sizes, pins, no absolute paths, every figure declared."""

from __future__ import annotations

import ast
import importlib.util
import importlib.metadata
import re
import subprocess
import tomllib
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml
from import_graph import ORDER, imports_between_children, layers
from stage_dependencies import expected

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(f.parent for f in (ROOT / "cmri_lib").rglob("__init__.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
MODULES = sorted((ROOT / "cmri_lib").rglob("*.py"))
def pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+", line) for line in lines)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in (line.split("==") for line in lines)}


def dependencies() -> set[str]:
    """Names of everything that pyproject.toml asks for, its extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = sum(project["optional-dependencies"].values(), project["dependencies"])
    return {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=]", name)[0]).lower() for name in asked}


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
    for part in ("**Question.**", "## Check", "## Exercise", "## Summary", "## Limits"):
        assert part in prose, part
    code = [c for c in cells if c.cell_type == "code"]
    lines = [sum(1 for x in c.source.splitlines() if x.strip() and not x.strip().startswith("#")) for c in code]
    assert max(lines) <= 15, code[lines.index(max(lines))].source
    assert any("assert" in c.source for c in code) and any("solution" in c.metadata.get("tags", []) for c in code)


def stages() -> dict[str, dict]:
    """The stages that run a notebook: all but the book of them."""
    every = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    return {name: stage for name, stage in every.items() if stage["cmd"].startswith("python -m cmri_lib.run ")}


def declared(stage: dict, kind: str) -> list[str]:
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in stage[kind]]


def notebook_of(stage: dict) -> Path:
    return next(n for n in NOTEBOOKS if n.name.startswith(stage["cmd"].split()[-1]))


def test_every_notebook_is_a_stage_that_writes_its_own_figures() -> None:
    assert sorted(notebook_of(s).name for s in stages().values()) == [n.name for n in NOTEBOOKS]
    for name, stage in stages().items():
        notebook = notebook_of(stage)
        published = set(re.findall(r'publish(?:_\w+)?\(\s*study,\s*"([^"]+)"', notebook.read_text()))
        folders = {figure.split("/")[0] for figure in published}
        assert published and folders == {notebook.name[:2]}, f"{notebook.name} publishes into {folders}"
        assert f"figures/${{dataset}}/{notebook.name[:2]}" in declared(stage, "outs"), name


def test_stages_and_parameters_exist() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        assert set(stage["params"]) <= set(params), name
        sections = set(stage["params"]) - {"profile", "dataset"}
        assert not sections or "by_cohort" in sections, f"{name}: what is chosen for one cohort alone is chosen in any section"
        for dep in stage["deps"]:
            assert "${" in dep or (ROOT / dep).exists(), dep


@pytest.mark.parametrize("name", list(stages()))
def test_a_stage_depends_on_the_code_that_it_uses(name: str) -> None:
    stage = stages()[name]
    listed = {dep for dep in stage["deps"] if dep.startswith("cmri_lib/")}
    needed = expected(name, stage, notebook_of(stage))
    assert listed == needed, f"stage {name}: add {sorted(needed - listed)}, remove {sorted(listed - needed)}"


@pytest.mark.parametrize("file,users", [
    ("cmri_lib/measures/utility/new.py", {"conditional", "utility", "teaching", "cross_vendor", "privacy", "volumes",
                                          "contrast", "translation", "differential_privacy"}),
    ("cmri_lib/measures/conditioning/new.py", {"conditional", "cross_vendor", "translation", "volumes", "contrast"}),
    ("cmri_lib/systems/conditional.py", {"conditional", "masks", "utility", "teaching", "cross_vendor",
                                         "privacy", "differential_privacy", "translation", "volumes"}),
    ("cmri_lib/generators/stacks.py", {"conditional", "masks", "utility", "teaching", "cross_vendor", "privacy", "volumes"}),
    ("cmri_lib/experiments/mask_screening.py", {"masks", "utility", "teaching", "cross_vendor"}),
    ("cmri_lib/privacy/copies.py", {"privacy", "differential_privacy"}),
    ("cmri_lib/generators/label_maps.py", {"conditional", "masks", "utility", "teaching", "cross_vendor", "privacy"}),
    ("cmri_lib/networks/stylegan.py", {"gan", "fidelity", "conditional", "masks", "utility", "teaching", "cross_vendor",
                                         "privacy"}),
    ("notebooks/13_comparison_review.py", {"review"})])
def test_a_change_touches_only_the_stages_that_use_the_file(file: str, users: set[str]) -> None:
    assert {name for name, stage in stages().items() if {file, *map(str, Path(file).parents)} & set(stage["deps"])} == users


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_go_one_way(package: Path) -> None:
    """Within every package, what lies in it can be ordered so that each file or folder imports only what comes before it."""
    graph = imports_between_children(package)
    assert graph, package
    placed = {child: floor for floor, children in enumerate(layers(graph)) for child in children}
    upward = [(child, other) for child, others in graph.items() for other in others if placed[other] >= placed[child]]
    assert not upward, f"imports run in a circle: {upward}"


def test_the_library_stands_in_its_order() -> None:
    graph = imports_between_children(ROOT / "cmri_lib")
    folders = {package.name for package in PACKAGES if package.parent.name == "cmri_lib"}
    assert folders <= set(ORDER) <= set(graph) and len(set(ORDER)) == len(ORDER), "place the new folder in import_graph.ORDER"
    for child, imported in graph.items():
        below = ORDER[:ORDER.index(child)] if child in ORDER else ORDER
        assert imported <= set(below), f"{child} imports {sorted(imported - set(below))}, which stands above it"


def test_at_the_root_stand_commands_only() -> None:
    for file in (ROOT / "cmri_lib").glob("*.py"):
        command = '__name__ == "__main__"' in file.read_text()
        assert command or file.name in ("__init__.py", "errors.py"), f"{file.name} is no command"


def test_no_private_vocabulary() -> None:
    words = re.compile(r"\b(un)?told\b|\bheard\b|\bruler\b|\bpupils?\b|\blessons?\b", re.IGNORECASE)
    for file in [*NOTEBOOKS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        found = [line for line in file.read_text().splitlines() if words.search(line)]
        assert not found, f"{file.name}: {found[0]}"


def test_lines_fit() -> None:
    others = [file for folder in ("tests", "benchmarks") for file in sorted((ROOT / folder).rglob("*.py"))]
    for files, most in ((NOTEBOOKS, 100), ([*MODULES, *others], 128)):
        for file in files:
            long = [line for line in file.read_text(encoding="utf-8").splitlines() if len(line) > most]
            assert not long, f"{file.name}: {long[0]}"


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is no package
        return False


def test_what_is_asked_of_a_module_is_there() -> None:
    """`module.name` and `from module import name` of the library, in it and in notebooks: a name that is gone would show only
    when it is called."""
    for file in (*MODULES, *NOTEBOOKS):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        imported = [(node.module, alias) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                    and (node.module or "").startswith("cmri_lib") for alias in node.names]
        modules = {alias.asname or alias.name: f"{of}.{alias.name}" for of, alias in imported
                   if _is_module(f"{of}.{alias.name}")}
        wanted = [(of, alias.name) for of, alias in imported]
        wanted += [(modules[node.value.id], node.attr) for node in ast.walk(tree) if isinstance(node, ast.Attribute)
                   and isinstance(node.value, ast.Name) and node.value.id in modules]
        missing = [f"{of}.{name}" for of, name in wanted
                   if not _is_module(f"{of}.{name}") and not hasattr(importlib.import_module(of), name)]
        assert not missing, f"{file.name} asks for {missing}"


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
