"""What makes two trainings the same: their settings, their model, their data and the code that runs them.

`train` returns at once when a finished training with the same fingerprint is on disk. The code enters by its syntax
tree without docstrings, so that editing prose retrains nothing, and editing a model retrains that model.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

PACKAGE = "cmri_lib"
#: Vectors that spectral normalisation estimates from the weights when a network is built: every kind of processor rounds them
#: in its own way, and they say nothing that the weights do not say.
ESTIMATED = (".parametrizations.weight.0._u", ".parametrizations.weight.0._v")


def digest(parts: Iterable[bytes]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of all parts."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:16]


def data_digest(data: Mapping[str, Tensor]) -> str:
    """Digest of named tensors: names, shapes, types and every byte."""
    parts = []
    for name, tensor in sorted(data.items()):
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        parts += [f"{name}{array.shape}{array.dtype}".encode(), array.tobytes()]
    return digest(parts)


def model_digest(model: nn.Module) -> str:
    """Digest of the architecture, of every plain attribute (σ, thresholds …) and of the initial weights."""
    plain = (bool, int, float, str, tuple, type(None))
    attributes = [f"{name}.{key}={value!r}" for name, module in model.named_modules()
                  for key, value in sorted(vars(module).items()) if isinstance(value, plain) and key != "training"]
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(ESTIMATED)}
    return digest([str(model).encode(), "\n".join(attributes).encode(), data_digest(weights).encode()])


def code_digest(*objects: object) -> str:
    """Digest of the modules of this package that define `objects` (instances or functions) and of all they import."""
    names = {inspect.unwrap(o).__module__ if inspect.isfunction(o) else type(o).__module__ for o in objects}
    return digest(f"{name}:{_syntax(path)}".encode() for name, path in sorted(_closure(names).items()))


def _closure(names: set[str]) -> dict[str, Path]:
    """Module name → file, of the package's modules among `names` and everything of the package they import."""
    found: dict[str, Path] = {}
    waiting = [n for n in names if n.split(".")[0] == PACKAGE]
    while waiting:
        name = waiting.pop()
        file = getattr(sys.modules.get(name), "__file__", None)
        if name in found or file is None:
            continue
        found[name] = Path(file)
        waiting += _imports(Path(file))
    return found


def _imports(file: Path) -> list[str]:
    """The loaded modules that `file` imports."""
    return [name for name in _named(file) if name in sys.modules]


@cache
def _named(file: Path) -> tuple[str, ...]:
    """What of the package the import statements of `file` name."""
    named: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            named += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` names a module, `from module import thing` does not; both are tried.
            named += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(name for name in named if name.split(".")[0] == PACKAGE)


@cache
def _syntax(path: Path) -> str:
    """The module's syntax tree without docstrings, comments and layout."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and _has_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def _has_docstring(node: ast.AST) -> bool:
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def training_fingerprint(model: nn.Module, data: Mapping[str, Tensor], settings: object,
                         *helpers: object) -> dict[str, str]:
    """Everything a finished training depends on, by part, so that a mismatch can name what changed.

    `helpers` are further objects that act on the data (augmentations); their attributes and code count.
    """
    return {
        "settings": digest([repr(settings).encode()]),
        "model": model_digest(model),
        "data": data_digest(data),
        "code": code_digest(*model.modules(), *(h for h in helpers if h is not None)),
        "helpers": digest(repr(h).encode() for h in helpers),
        "torch": torch.__version__.split("+")[0],
    }

