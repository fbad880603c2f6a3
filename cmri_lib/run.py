"""The notebook runner: parameters checked, executed elsewhere, failing loudly.

    python -m cmri_lib.run 05                       as params.yaml says
    python -m cmri_lib.run 01 05 06 13 --dataset acdc --profile laptop

The percent-format source ``notebooks/NN_topic.py`` is converted and executed by Papermill into ``executed/``; the paired
``.ipynb`` is never touched. Nothing may depend on an executed notebook: it differs at every run.
"""

from __future__ import annotations

import argparse
import ast
import sys
import time
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from cmri_lib.config.study import project_root
from cmri_lib.errors import ParameterError, StudyError


def find_notebook(root: Path, number: str) -> Path:
    """The source ``notebooks/<number>_*.py``. Raises ParameterError unless there is exactly one."""
    found = sorted((root / "notebooks").glob(f"{number}_*.py"))
    if len(found) != 1:
        known = sorted(p.stem for p in (root / "notebooks").glob("[0-9][0-9]_*.py"))
        raise ParameterError(f"{len(found)} notebooks are numbered {number!r}", file="notebooks", field="number",
                             remedy=f"choose among {known}")
    return found[0]


def notebook_parameters(notebook: nbformat.NotebookNode, source: Path) -> dict[str, Any]:
    """Names and defaults assigned in the cell tagged ``parameters``. Raises ParameterError if there is no such cell."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            statements = [s for s in ast.parse(cell.source).body if isinstance(s, ast.Assign)]
            return {s.targets[0].id: ast.literal_eval(s.value) for s in statements}
    raise ParameterError("no cell is tagged 'parameters'", file=source, remedy='begin one with # %% tags=["parameters"]')


def check_parameters(given: dict[str, Any], known: dict[str, Any], source: Path) -> None:
    """Raise ParameterError on a name the notebook does not have or a value unlike its default (None takes text)."""
    for name, value in given.items():
        if name not in known:
            raise ParameterError(f"unknown parameter {name!r}", file=source, field=name, remedy=f"known are {list(known)}")
        kind = str if known[name] is None else type(known[name])
        if not isinstance(value, kind):
            raise ParameterError(f"{value!r} is not {kind.__name__}", file=source, field=name,
                                 remedy=f"give a value like the default {known[name]!r}")


def run(number: str, parameters: dict[str, Any], root: Path | None = None) -> Path:
    """Execute one notebook; returns the executed copy.

    Raises:
        ParameterError: before anything runs, on parameters the notebook does not know.
        PapermillExecutionError: if a cell fails; the copy holds everything up to there.
    """
    root = root or project_root()
    source = find_notebook(root, number)
    notebook = jupytext.read(source)
    check_parameters(parameters, notebook_parameters(notebook, source), source)
    folder = root / "executed"
    folder.mkdir(exist_ok=True)
    target = folder / f"{source.stem}.ipynb"
    nbformat.write(notebook, target)
    try:
        papermill.execute_notebook(target, target, parameters=parameters, cwd=root, kernel_name="python3",
                                   language="python", progress_bar=False, log_output=False)
    finally:
        executed = nbformat.read(target, nbformat.NO_CONVERT)
        keep_last_states(executed)
        nbformat.write(executed, target)
    return target


def keep_last_states(notebook: nbformat.NotebookNode) -> None:
    """Of each progress bar its last state: on a screen it overwrites its line, in a file every state would be a line."""
    for cell in notebook.cells:
        outputs: list[nbformat.NotebookNode] = []
        for output in cell.get("outputs", []):
            if outputs and output.output_type == "stream" and outputs[-1].get("name") == output.name:
                outputs[-1].text += output.text
            else:
                outputs.append(output)
        for output in outputs:
            if output.output_type == "stream":
                output.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in output.text.split("\n"))
        if outputs:
            cell.outputs = outputs


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if every notebook ran to its end."""
    parser = argparse.ArgumentParser(prog="python -m cmri_lib.run", description="Run numbered notebooks in order.")
    parser.add_argument("numbers", nargs="+", metavar="NN")
    parser.add_argument("--profile", help="smoke, laptop or gpu; default: as params.yaml says")
    parser.add_argument("--dataset", help="a folder below data/; default: as params.yaml says")
    options = parser.parse_args(arguments)
    chosen = {k: getattr(options, k) for k in ("profile", "dataset") if getattr(options, k)}
    for number in options.numbers:
        started = time.perf_counter()
        try:
            target = run(number, chosen)
        except StudyError as problem:
            print(problem, file=sys.stderr)
            return 2
        except PapermillExecutionError as problem:
            print(f"notebook {number}, cell {problem.exec_count}: {problem.ename}: {problem.evalue}\n"
                  f"{problem.source}\n  Remedy: read executed/{number}_*.ipynb, mend the cause, run again; "
                  "finished trainings are kept", file=sys.stderr)
            return 1
        print(f"{target.name} ran in {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
