"""What the DVC stage of a notebook depends on, found from its imports and from the systems that it trains."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import jupytext

from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.parameters import Parameters
from cmri_lib.config.study import open_study
from cmri_lib.systems.contrast import MANIFOLD
from cmri_lib.systems.register import SYSTEMS
from cmri_lib.systems.system import System
from cmri_lib.systems.translation import ACROSS_VENDORS
from cmri_lib.systems.vendors import WAY_FLOW
from cmri_lib.training.fingerprint import _closure

ROOT = Path(__file__).parents[1]
#: Folders that a stage depends on as a whole, because what lies in them belongs together.
FOLDERS = ("cohort", "config", "training", "reporting", "networks/conditioning", "measures/statistics", "measures/instruments",
           "measures/fidelity", "measures/anatomy", "measures/conditioning", "measures/utility")
#: Further folders of stages that use nearly all that lies in them.
NEARLY_ALL = {"conditional": ("generators", "measures", "networks", "systems"), "masks": ("generators", "networks", "systems"),
              "utility": ("generators", "networks", "systems"), "teaching": ("generators", "networks", "systems"),
              "cross_vendor": ("generators", "networks", "systems"),
              "privacy": ("generators", "networks", "systems", "privacy"), "differential_privacy": ("systems", "privacy"),
              "volumes": ("systems",)}
#: Networks and generators are dependencies of the stages whose systems are made of them, not of all that can name them.
MODELS = ("networks", "generators")
#: Where the stages of dvc.yaml keep what they train.
WORK = "work/${dataset}/${profile}/"
#: A vocabulary with every kind of condition.
EVERYTHING = Vocabulary({c: ("a", "b") for c in ("vendor", "disease", "phase", "level")}, tissues=True)


def modules_of(source: str) -> set[str]:
    """Dotted names below cmri_lib that Python source imports; of ``from a import b`` both a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        found |= {name for name in names if name.startswith("cmri_lib.")}
    return found


@cache
def imports_of(file: Path) -> set[str]:
    """`modules_of` of a file, which many stages read."""
    return modules_of(file.read_text(encoding="utf-8"))


@cache
def file_of(module: str) -> Path | None:
    """The file of a module; None for a name that is none."""
    path = ROOT / module.replace(".", "/")
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else None


def import_closure(names: set[str]) -> set[Path]:
    """Files of the library that `names` reach, without going through networks and generators."""
    files, waiting = set(), list(names)
    while waiting:
        file = file_of(waiting.pop())
        if file is None or file in files:
            continue
        files.add(file)
        if file.relative_to(ROOT / "cmri_lib").parts[0] not in MODELS:
            waiting += imports_of(file)
    return files


@cache
def modules_built(system: System) -> frozenset[str]:
    """Names of the modules whose classes a system, and what it starts from, is made of; many stages train the same ones."""
    own = {type(module).__module__ for module in system.build(params(), EVERYTHING, 0).modules()}
    return frozenset(own | (modules_built(system.pretrained) if system.pretrained is not None else set()))


@cache
def params() -> Parameters:
    return open_study("smoke", "phantom", ROOT).params


def files_of_systems(systems: list[System]) -> set[Path]:
    """Files of networks and generators that the trainings of `systems`, and of what they start from, depend on."""
    return set(_closure(set().union(*map(modules_built, systems))).values())


def folders_of_weights(stage: dict) -> set[str]:
    """The folders below work/ that a DVC stage writes or reads: each holds the weights of the systems of that name."""
    paths = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in [*stage["deps"], *stage["outs"]]]
    return {path.removeprefix(WORK) for path in paths if path.startswith(WORK)}


def expected(name: str, stage: dict, notebook: Path) -> set[str]:
    """The paths below cmri_lib that the stage `name` of ``dvc.yaml`` must declare as deps."""
    code = "\n".join(c.source for c in jupytext.read(notebook).cells if c.cell_type == "code")
    systems = [s for s in (*SYSTEMS.values(), MANIFOLD, WAY_FLOW, *ACROSS_VENDORS.values())
               if s.stage in folders_of_weights(stage)]
    # What a notebook imports of networks and generators itself is used by it, whatever it trains.
    models = files_of_systems(systems) | ({file_of(module) for module in modules_of(code)} - {None})
    folders, declared = (*NEARLY_ALL.get(name, ()), *FOLDERS), set()
    for file in import_closure(modules_of(code)) | models:
        path = file.relative_to(ROOT / "cmri_lib")
        if path.parts[0] in MODELS and file not in models:
            continue
        folder = next((f for f in folders if path.as_posix().startswith(f + "/")), None)
        if path.name != "__init__.py" and path.parts[0] != "errors.py":
            declared.add(f"cmri_lib/{folder or path.as_posix()}")
    return declared
