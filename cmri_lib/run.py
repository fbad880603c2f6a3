"""The notebook runner: parameters checked, executed elsewhere, progress shown, failing loudly.

    python -m cmri_lib.run 05                       as params.yaml says
    python -m cmri_lib.run 01 05 06 13 --dataset acdc --profile laptop
    python -m cmri_lib.run --summary                what there is, and what to open

The percent-format source ``notebooks/NN_topic.py`` is converted and executed by Papermill into ``executed/``;
the paired ``.ipynb`` is never touched. No stage of the pipeline may depend on an executed notebook, which differs at every run.
"""

from __future__ import annotations

import argparse
import ast
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import papermill
import yaml
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError

from cmri_lib.cohort.places import project_root
from cmri_lib.errors import NothingToDo, ParameterError, StudyError
from cmri_lib.reporting.progress import Progress


#: The notebook that compares what the others have made.
COMPARING = "13"


class KernelDied(StudyError):
    """The process that executes a notebook ended before the notebook did."""


def find_notebook(root: Path, number: str) -> Path:
    """The source ``notebooks/<number>_*.py``. Raises ParameterError unless there is exactly one."""
    found = sorted((root / "notebooks").glob(f"{number}_*.py"))
    if len(found) != 1:
        known = sorted(p.stem for p in (root / "notebooks").glob("[0-9][0-9]_*.py"))
        raise ParameterError(f"{len(found)} notebooks are numbered {number!r}", file="notebooks",
                             field="number", remedy=f"choose among {known}")
    return found[0]


def notebook_parameters(notebook: nbformat.NotebookNode, source: Path) -> dict[str, Any]:
    """Names and defaults assigned in the cell tagged ``parameters``; ParameterError if there is none."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            statements = [s for s in ast.parse(cell.source).body if isinstance(s, ast.Assign)]
            return {s.targets[0].id: ast.literal_eval(s.value) for s in statements}
    raise ParameterError("no cell is tagged 'parameters'", file=source,
                         remedy='begin one with # %% tags=["parameters"]')


def check_parameters(given: dict[str, Any], known: dict[str, Any], source: Path) -> None:
    """ParameterError on a name the notebook does not have or a value unlike its default (None takes text)."""
    for name, value in given.items():
        if name not in known:
            raise ParameterError(f"unknown parameter {name!r}", file=source, field=name,
                                 remedy=f"known are {list(known)}")
        kind = str if known[name] is None else type(known[name])
        if not isinstance(value, kind):
            raise ParameterError(f"{value!r} is not {kind.__name__}", file=source, field=name,
                                 remedy=f"give a value like the default {known[name]!r}")


def run(number: str, parameters: dict[str, Any], root: Path | None = None) -> Path:
    """Execute one notebook; returns the executed copy.

    Raises:
        ParameterError: before anything runs, on parameters the notebook does not know.
        KernelDied: if the executing process ends early; the copy holds everything up to there.
        PapermillExecutionError: if a cell fails; the copy holds everything up to there. A cell that raises `NothingToDo`
            ends the notebook without failure: what it would have made is written, empty.
    """
    root = root or project_root()
    source = find_notebook(root, number)
    notebook = jupytext.read(source)
    check_parameters(parameters, notebook_parameters(notebook, source), source)
    folder = root / "executed"
    folder.mkdir(exist_ok=True)
    target = folder / f"{source.stem}.ipynb"
    nbformat.write(notebook, target)
    # What Papermill and its client log as an error they also raise; their warnings concern only themselves.
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    left_out = False
    try:
        with Progress(source.stem) as progress:
            papermill.execute_notebook(target, target, parameters=parameters, cwd=root, kernel_name="python3",
                                       language="python", progress_bar=False, log_output=False,
                                       engine_name=ReportingEngine.name, progress=progress)
    except PapermillExecutionError as problem:
        if problem.ename != NothingToDo.__name__:
            raise
        left_out = True
        _leave_out(root, number, parameters, problem.evalue.split("\n")[0])
    finally:
        executed = nbformat.read(target, nbformat.NO_CONVERT)
        keep_last_states(executed)
        executed.metadata.setdefault("papermill", {})["left_out"] = left_out  # it may have failed before it began
        nbformat.write(executed, target)
    return target


def _leave_out(root: Path, number: str, parameters: dict[str, Any], why: str) -> None:
    # Imported here: the library takes longer to load than all that a runner does.
    from cmri_lib.config.study import open_study
    from cmri_lib.reporting.left_out import leave_out

    leave_out(open_study(parameters.get("profile"), parameters.get("dataset"), root), number, why)
    print(f"notebook {number} is left out: {why}", flush=True)


def keep_last_states(notebook: nbformat.NotebookNode) -> None:
    """Keep of each progress bar its last state: in a file, unlike on a screen, each would be a line."""
    for cell in notebook.cells:
        outputs: list[nbformat.NotebookNode] = []
        for output in cell.get("outputs", []):
            if outputs and output.output_type == "stream" and outputs[-1].get("name") == output.name:
                outputs[-1].text += output.text
            else:
                outputs.append(output)
        for output in outputs:
            if output.output_type == "stream":
                lines = output.text.split("\n")
                output.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
        if outputs:
            cell.outputs = outputs


class OwnKernelManager(AsyncKernelManager):
    """Kernels of the Python that runs this, whatever Jupyter calls "python3" elsewhere (JUPYTER_PATH, the user's folder).

    It asks a kernel to end without interrupting it first: on a slow machine it may still be at work on its last message,
    and prints that it was interrupted. One that does not end within seconds is killed.
    """

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python")

    async def _async_interrupt_kernel(self) -> None:
        pass


class ReportingClient(PapermillNotebookClient):
    """Papermill's client, which passes on to a `Progress` which cell begins and what the cells print."""

    def __init__(self, manager: NotebookExecutionManager, progress: Progress, **options: Any):
        super().__init__(manager, **options)
        self.progress = progress
        self.on_cell_execute = lambda cell, cell_index: progress.cell(cell_index)

    def process_message(self, message: dict[str, Any], *rest: Any, **named: Any) -> Any:
        if message["msg_type"] == "stream":
            self.progress.output(message["content"]["text"])
        return super().process_message(message, *rest, **named)


class ReportingEngine(NBClientEngine):
    """Papermill's engine with a `ReportingClient`, and a kernel that prints errors only.

    Papermill writes the whole copy before and after every cell, prose included: 250 times in a long notebook, which took
    longer than many of its cells. Here it is written when `SAVE_EVERY` seconds have passed, and at the end, however that comes.
    """

    name = "cmri_lib"
    SAVE_EVERY = 5.0

    @classmethod
    def execute_managed_notebook(cls, nb_man: NotebookExecutionManager, kernel_name: str, *,
                                 progress: Progress, start_timeout: int = 60, **_: Any) -> None:
        progress.start(nb_man.nb)
        # A kernel warns at each start that it talks to this process unencrypted, though both are on one
        # machine, and may warn that a debugger will miss breakpoints. Its errors are still printed.
        client = ReportingClient(nb_man, progress, kernel_name=kernel_name, startup_timeout=start_timeout,
                                 kernel_manager_class=OwnKernelManager, log=logging.getLogger("papermill"),
                                 extra_arguments=["--log-level=ERROR"])
        # A kernel's bars would be as wide as the terminal it was started from, and in a narrow one cut short. tqdm warns
        # where notebook widgets are not installed, though its bars are text here.
        defaults = {"TQDM_NCOLS": "100", "TQDM_NROWS": "20", "PYDEVD_DISABLE_FILE_VALIDATION": "1",
                    "PYTHONWARNINGS": "ignore:IProgress not found"}
        nb_man.save = partial(cls.save_now_and_then, nb_man)
        try:
            client.execute(env=defaults | os.environ)
        except BaseException as cause:
            nb_man.nb.metadata.papermill["exception"] = True  # Papermill itself marks only a cell that raised
            if not isinstance(cause, RuntimeError):
                raise
            raise KernelDied(
                f"the kernel that executes it has ended ({progress.where()}; {cause})",
                file=f"notebooks/{progress.name}.py",
                remedy="run again; finished trainings are kept, and the one under way goes on from its last "
                       "checkpoint. If it ends again, memory may be short: close other programs") from cause
        finally:
            del nb_man.save  # Papermill's own again, for the end

    @classmethod
    def save_now_and_then(cls, nb_man: NotebookExecutionManager) -> None:
        """Write the copy if it was last written `SAVE_EVERY` seconds ago or earlier."""
        if (nb_man.now() - nb_man.last_save_time).total_seconds() >= cls.SAVE_EVERY:
            type(nb_man).save(nb_man)


papermill_engines.register(ReportingEngine.name, ReportingEngine)


def published(root: Path) -> dict[Path, tuple[int, int]]:
    """Every file below ``figures/`` and ``results/``, relative to `root`: its time of change and its size."""
    files = (f for place in ("figures", "results") for f in sorted((root / place).rglob("*")))
    return {f.relative_to(root): (f.stat().st_mtime_ns, f.stat().st_size) for f in files
            if f.is_file() and not f.name.startswith(".")}


def notebook_number(file: Path) -> str:
    """The number of the notebook that writes a published file: ``figures/phantom/05/x.png``, ``results/phantom/05_x.csv``;
    empty for one of several notebooks."""
    number = file.parts[2].split("_")[0] if len(file.parts) > 2 else ""
    return number if number.isdigit() else ""


def listed(files: Iterable[Path]) -> str:
    """Figures counted by folder (a .png, its .svg and its .csv are one figure), results by name."""
    files = list(files)
    figures = Counter(f.parent for f in {f.with_suffix("") for f in files if f.parts[0] == "figures"})
    counted = [f"{n} figure{'s' * (n > 1)} in {place.as_posix()}/" for place, n in sorted(figures.items())]
    return ", ".join(counted + [f.as_posix() for f in files if f.parts[0] == "results"])


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def last_run(executed: Path) -> str:
    """What an executed notebook says of its own run."""
    if not executed.exists():
        return "no executed copy"
    run = nbformat.read(executed, nbformat.NO_CONVERT).metadata.get("papermill", {})
    if not run.get("end_time"):
        return "broken off"
    when = datetime.fromisoformat(run["end_time"]).astimezone().strftime("%Y-%m-%d %H:%M")
    given = "".join(f", {name} {value}" for name, value in run.get("parameters", {}).items())
    ended = "left out" if run.get("left_out") else "failed" if run.get("exception") else "ran"
    return f"{ended} {when} in {duration(run['duration'])}{given}"


def usual(root: Path, name: str) -> str:
    """The profile, or data set, that ``params.yaml`` names."""
    return yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))[name]


def summary(root: Path, dataset: str | None = None) -> str:
    """What the notebooks have made of `dataset` (by default that of params.yaml), and what to open."""
    dataset = dataset or usual(root, "dataset")
    files = [f for f in published(root) if len(f.parts) > 2 and f.parts[1] == dataset]
    notebooks = [p.stem for p in sorted((root / "notebooks").glob("[0-9][0-9]_*.py"))]
    lines = [f"Made of the data set {dataset}:"]
    copies = {name: root / "executed" / f"{name}.ipynb" for name in notebooks}
    for name in notebooks:
        own = [f for f in files if notebook_number(f) == name[:2]]
        lines.append(f"  {name} ({last_run(copies[name])}): {listed(own) or 'nothing yet'}")
    lines.append("To open:")
    pages = {"book/index.html": "everything, to browse", "results/FINDINGS.md": "what was found, in words",
             "results/README.md": "the results as tables", "results/scores.csv": "every score"}
    pages |= {f.as_posix(): f"figure of notebook {COMPARING}" for f in files
              if notebook_number(f) == COMPARING and f.suffix == ".png"}
    lines += [f"  {page}: {what}" for page, what in pages.items() if (root / page).exists()]
    if any(copy.exists() for copy in copies.values()):
        lines.append("  executed/: the notebooks with all they printed and drew")
    for name in [name for name in notebooks if name[:2] == COMPARING]:
        place = "executed" if copies[name].exists() else "notebooks"
        lines.append(f"To look at a notebook: source .venv/bin/activate; jupyter lab {place}/{name}.ipynb")
    return "\n".join(lines)


def written_over(root: Path, profile: str | None) -> str:
    """What to say after a run of another profile than that of params.yaml, since all write the same files; "" otherwise."""
    if profile in (None, usual(root, "profile")):
        return ""
    return (f"figures/ and results/ hold the profile {profile} of these notebooks now, not {usual(root, 'profile')}; "
            "git restore figures results brings back what is published")


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 if every notebook ran to its end."""
    parser = argparse.ArgumentParser(prog="python -m cmri_lib.run",
                                     description="Run numbered notebooks in order.")
    parser.add_argument("numbers", nargs="*", metavar="NN")
    parser.add_argument("--profile", help="smoke, laptop, overnight or gpu; default: as params.yaml says")
    parser.add_argument("--dataset", help="a folder below data/; default: as params.yaml says")
    parser.add_argument("--summary", action="store_true", help="then print what there is and what to open")
    options = parser.parse_args(arguments)
    if not (options.numbers or options.summary):
        parser.error("give the number of a notebook, or --summary")
    chosen = {k: getattr(options, k) for k in ("profile", "dataset") if getattr(options, k)}
    number = ""
    try:
        root = project_root()
        for number in options.numbers:
            started, before = time.perf_counter(), published(root)
            target = run(number, chosen, root)
            # Other notebooks may run at the same time: their files are theirs to name.
            made = listed(f for f, state in published(root).items()
                          if state != before.get(f) and notebook_number(f) in ("", number))
            print(f"{target.stem} ran in {duration(time.perf_counter() - started)}: "
                  f"{made or 'no figure or result made'}; executed copy: executed/{target.name}", flush=True)
        if options.numbers and (note := written_over(root, options.profile)):
            print(note)
        if options.summary:
            print(summary(root, options.dataset))
    except StudyError as problem:
        print(problem, file=sys.stderr)
        return 1 if isinstance(problem, KernelDied) else 2
    except PapermillExecutionError as problem:
        print(f"notebook {number}, cell {problem.exec_count}: {problem.ename}: {problem.evalue}\n"
              f"{problem.source}\n  Remedy: read executed/{number}_*.ipynb, mend the cause, run again; "
              "finished trainings are kept", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # else it reports the failed cell at length
        print(f"notebook {number}: interrupted\n  Remedy: run again; finished trainings are kept",
              file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
