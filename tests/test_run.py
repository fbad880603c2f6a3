"""The runner: refuses what a notebook does not know, spares the source, shows progress, fails loudly."""

from __future__ import annotations

import gc
import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from cmri_lib import run
from cmri_lib.errors import ParameterError
from cmri_lib.reporting.progress import Progress

SOURCE = '''# %% tags=["parameters"]
profile = None
count = 3

# %%
print(profile, count * 2)
assert count < 10
'''

TRAINING = SOURCE + '''
# %% [markdown]
# # 01 · A topic
# ## A `training` under way
# In a cell of its own.

# %%
import time
from pathlib import Path
from tqdm import tqdm
bar = tqdm(total=48, desc="U1 VAE", unit="step")
bar.update(12)
bar.set_postfix_str("320 images/s")
for _ in range(300):  # until the test has seen it
    if Path("seen").exists():
        break
    time.sleep(0.1)
'''

MAKING = SOURCE + '''
# %%
from pathlib import Path
for file in ("figures/phantom/01/a.png", "figures/phantom/01/a.svg", "figures/phantom/01/a.csv",
             "figures/phantom/01/b.png", "results/phantom/01_topic.csv"):
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text("made")
'''

# The last request to a kernel, whose reply ends the notebook, keeps it busy for a while.
BUSY = '''
import time
handlers = get_ipython().kernel.shell_handlers
answer = handlers["kernel_info_request"]
async def slowly(*message):
    await answer(*message)
    time.sleep(1)
handlers["kernel_info_request"] = slowly
'''


# A cell that waits for two processes, as `experiments.parallel` does; once one of them is at work, the runner is interrupted.
INTERRUPTED = '''
# %%
import os, signal, threading, time
from pathlib import Path
from joblib import Parallel, delayed

def work():
    Path("begun").touch()
    time.sleep(120)
    Path("ended").touch()

def interrupt():
    while not Path("begun").exists():
        time.sleep(0.05)
    os.kill(os.getppid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
Parallel(n_jobs=2)(delayed(work)() for _ in range(2))
'''


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text("profile: laptop\n")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "01_topic.py").write_text(SOURCE)
    return tmp_path


def test_executes_elsewhere_with_the_given_parameters(project: Path) -> None:
    target = run.run("01", {"count": 4}, project)
    assert target == project / "executed" / "01_topic.ipynb"
    assert "None 8" in str(nbformat.read(target, 4).cells[-1].outputs)
    assert (project / "notebooks" / "01_topic.py").read_text() == SOURCE
    assert not (project / "notebooks" / "01_topic.ipynb").exists()


def test_a_failing_cell_fails_the_run_and_keeps_what_ran(project: Path, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(PapermillExecutionError):
        run.run("01", {"count": 11}, project)
    assert "None 22" in (project / "executed" / "01_topic.ipynb").read_text()
    (project / "notebooks" / "01_topic.py").write_text(SOURCE.replace("count = 3", "count = 12"))
    monkeypatch.chdir(project)
    assert run.main(["01"]) == 1
    assert "AssertionError" in capsys.readouterr().err


def test_of_a_progress_bar_the_last_state_is_kept(project: Path) -> None:
    bar = ("import sys\nfor k in range(4):\n    print(f'\\r{k}/3', end='', file=sys.stderr, flush=True)\n"
           "print(file=sys.stderr)\n")
    (project / "notebooks" / "01_topic.py").write_text(f"{SOURCE}\n# %%\n{bar}print('done')\n")
    outputs = nbformat.read(run.run("01", {}, project), 4).cells[-1].outputs
    said = {name: "".join(o.text for o in outputs if o.name == name) for name in ("stderr", "stdout")}
    assert said == {"stderr": "3/3\n", "stdout": "done\n"}


@pytest.mark.parametrize(("parameters", "match"),
                         [({"cuont": 1}, "cuont"), ({"count": "4"}, "not int"), ({"profile": 3}, "not str")])
def test_unknown_or_mistyped_parameters_never_start(project: Path, parameters: dict, match: str) -> None:
    with pytest.raises(ParameterError, match=match):
        run.run("01", parameters, project)
    assert not (project / "executed").exists()


def test_missing_notebooks_and_parameter_cells_are_named(project: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match="01_topic"):
        run.run("02", {}, project)
    (project / "notebooks" / "01_topic.py").write_text("# %%\nx = 1\n")
    with pytest.raises(ParameterError, match="parameters"):
        run.run("01", {}, project)
    monkeypatch.chdir(project)
    assert run.main(["02"]) == 2


@pytest.mark.parametrize("bars", [True, False])
def test_a_log_shows_the_cell_its_heading_and_the_training_under_way(project: Path, bars: bool,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "notebooks" / "01_topic.py").write_text(TRAINING)
    class Log(io.StringIO):
        def write(self, text: str) -> int:
            if "cell 3" in text and ("U1" in text or not bars):
                (project / "seen").touch()
            return super().write(text)

    log = Log()
    monkeypatch.setattr(run, "Progress", partial(Progress, stream=log, every=0.1))
    monkeypatch.delenv("TQDM_DISABLE")  # set for all tests in conftest.py
    if not bars:
        monkeypatch.setenv("TQDM_DISABLE", "1")
    run.run("01", {}, project)
    lines = log.getvalue().splitlines()
    assert lines[0] == "01_topic: 3 cells to execute"
    last = r"01_topic: cell 3 of 3 after \d\d:\d\d, A training under way"
    last += r" \| U1 VAE 25 %, 320 images/s, \d\d:\d\d left" * bars
    assert any(re.fullmatch(last, line) for line in lines), lines
    assert bars or "U1" not in log.getvalue()


def test_a_log_gets_a_line_a_minute_and_a_terminal_two_a_second() -> None:
    assert Progress("02_vae", io.StringIO()).every == 60 and Progress("02_vae", Terminal()).every == 0.5


class Terminal(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.news = threading.Condition()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self.news:
            self.news.notify_all()
            return super().write(text)

    def shows(self, text: str) -> bool:
        """Whether `text` is written before long; waits for it."""
        with self.news:
            return self.news.wait_for(lambda: text in self.getvalue(), timeout=60)


@pytest.fixture
def second_cell(monkeypatch: pytest.MonkeyPatch) -> Progress:
    progress = Progress("02_vae", Terminal(), every=0.02)
    progress.started = 0.0
    monkeypatch.setattr("cmri_lib.reporting.progress.time", SimpleNamespace(perf_counter=lambda: 83.0))
    code, text = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell
    cells = [code("a = 1"), text("# Reconstructions of *unseen* hearts"), code(" "), code("b = 1")]
    progress.start(nbformat.v4.new_notebook(cells=cells))
    progress.cell(3)
    return progress


def bar(n: int, total: int = 40, name: str = "U6 DDPM: ", **more: object) -> str:
    return "\r" + tqdm.format_meter(n, total, 10.0, prefix=name, **more)


@pytest.mark.parametrize(("printed", "shown"), [
    (bar(10, unit="step", postfix="123 images/s"), "U6 DDPM 25 %, 123 images/s, 00:30 left"),
    (bar(10, unit="batch"), "U6 DDPM 25 %, 1.00 batch/s, 00:30 left"),
    (bar(5, name="", unit="batch"), "12 %, 2.00 s/batch, 01:10 left"),
    (bar(0), "U6 DDPM 0 %"),
    (bar(10) + bar(20), "U6 DDPM 50 %, 2.00 it/s, 00:10 left"),
    (bar(10) + "\n\x1b[Asome warning, 9 %\n", "U6 DDPM 25 %, 1.00 it/s, 00:30 left"),
    (bar(10) + bar(40) + "\n", ""),
    ("3 of 4 done\n", "")])
def test_of_what_a_cell_prints_the_last_bar_is_shown(second_cell: Progress, printed: str, shown: str) -> None:
    second_cell.output(printed)
    line = "02_vae: cell 2 of 2 after 01:23, Reconstructions of unseen hearts"
    assert second_cell.line() == line + (f" | {shown}" if shown else "")
    second_cell.output("no bar")
    assert second_cell.bar == shown
    second_cell.cell(0)
    assert second_cell.line() == "02_vae: cell 1 of 2 after 01:23"


@pytest.mark.parametrize(("width", "line"), [
    (104, ", Reconstructions of unseen hearts | U6 DDPM 25 %, 9 images/s, 00:30 left"),
    (80, ", Reconst… | U6 DDPM 25 %, 9 images/s, 00:30 left"),
    (78, " | U6 DDPM 25 %, 9 images/s, 00:30 left"),
    (40, " | U6 DD…")])
def test_a_line_is_shortened_to_the_terminal(second_cell: Progress, width: int, line: str) -> None:
    second_cell.output(bar(10, postfix="9 images/s"))
    assert second_cell.line(width) == f"02_vae: cell 2 of 2 after 01:23{line}"
    assert max(len(second_cell.line(n)) - n for n in range(1, 120)) == 0


def test_on_a_terminal_one_line_is_overwritten_and_then_cleared(second_cell: Progress,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    long, short = "02_vae: cell 2 of 2 after 01:23, Reconstructions of unseen…", "02_vae: cell 1 of 2 after 01:23"
    with second_cell:
        assert second_cell.stream.shows(long)
        second_cell.cell(0)
        assert second_cell.stream.shows("\r" + short.ljust(59)) and second_cell.stream.shows("\r" + short + "\r")
    written = second_cell.stream.getvalue()
    states = written.split("\r")
    assert "\n" not in written and max(map(len, states)) <= 59 and states[-1] == ""
    assert states[1] == long
    assert states[-2].strip() == "" and len(states[-2]) == len(short)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_the_command_keeps_to_a_narrow_terminal(project: Path) -> None:
    import termios  # neither exists on Windows

    (project / "notebooks" / "01_topic.py").write_text(TRAINING)
    screen, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 48))
    # A kernel that finds itself under pytest does not pass its terminal on to tqdm.
    unlike = ("TQDM_DISABLE", "COLUMNS", "PYTEST_CURRENT_TEST")
    environment = {name: value for name, value in os.environ.items() if name not in unlike}
    process = subprocess.Popen([sys.executable, "-m", "cmri_lib.run", "01"], cwd=project, stderr=terminal,
                               stdout=subprocess.PIPE, text=True, env=environment)
    os.close(terminal)
    written = b""
    try:
        while block := os.read(screen, 4096):
            written += block
            if b"U1 VAE" in written:
                (project / "seen").touch()
    except OSError:  # Linux: the other side is closed
        pass
    os.close(screen)
    said = process.communicate()[0]
    assert re.fullmatch(r"01_topic ran in \d+ s: no figure or result made; "
                        r"executed copy: executed/01_topic.ipynb\n", said)
    states = written.decode().split("\r")
    assert process.returncode == 0 and "\n" not in written.decode() and max(map(len, states)) == 47
    assert any(re.fullmatch(r"01_topic: cell 3 of 3 after \d\d:\d\d \| U1 VAE.*…", s) for s in states), states
    # The notebook is the same from whatever terminal it was started: its bars are not cut at 48 columns.
    executed = nbformat.read(project / "executed" / "01_topic.ipynb", 4)
    assert "320 images/s]" in executed.cells[-1].outputs[0].text


def test_the_command_names_what_was_made_and_nothing_foreign(project: Path, monkeypatch: pytest.MonkeyPatch,
                                                             capfd: pytest.CaptureFixture) -> None:
    (project / "notebooks" / "01_topic.py").write_text(MAKING + BUSY)
    for old in ("figures/phantom/01/old.png", "results/phantom/old.csv"):
        (project / old).parent.mkdir(parents=True)
        (project / old).write_text("not made by this run")
    monkeypatch.chdir(project)
    assert run.main(["01"]) == 0
    printed = capfd.readouterr()  # of the processes that run the notebook, too
    assert printed.err == "01_topic: 3 cells to execute\n"
    said = (r"01_topic ran in \d+ s: 2 figures in figures/phantom/01/, results/phantom/01_topic.csv; "
            r"executed copy: executed/01_topic.ipynb\n")
    assert re.fullmatch(said, printed.out)


def test_another_profile_than_the_usual_says_what_it_wrote_over(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("profile: overnight\n")
    assert run.written_over(tmp_path, None) == run.written_over(tmp_path, "overnight") == ""
    said = run.written_over(tmp_path, "smoke")
    assert "profile smoke" in said and "not overnight" in said and "git restore figures results" in said


def test_the_kernel_is_of_this_python_whatever_jupyter_finds(project: Path, tmp_path_factory: pytest.TempPathFactory,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = tmp_path_factory.mktemp("jupyter") / "kernels" / "python3"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "foreign", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(foreign.parents[1]))
    (project / "notebooks" / "01_topic.py").write_text(SOURCE + "\n# %%\nimport sys; print(sys.executable)\n")
    executed = nbformat.read(run.run("01", {}, project), nbformat.NO_CONVERT)
    assert executed.cells[-1].outputs[0].text == f"{sys.executable}\n"


def test_a_kernel_that_dies_gives_a_remedy(project: Path, monkeypatch: pytest.MonkeyPatch,
                                           capfd: pytest.CaptureFixture,
                                           caplog: pytest.LogCaptureFixture) -> None:
    (project / "notebooks" / "01_topic.py").write_text(f"{SOURCE}\n# %%\nimport os\nos._exit(1)\n")
    monkeypatch.chdir(project)
    assert run.main(["01"]) == 1
    error = capfd.readouterr().err
    assert "notebooks/01_topic.py: the kernel" in error and "cell 3 of 3" in error
    assert "Remedy: run again; finished trainings are kept" in error and "Traceback" not in error
    assert not caplog.records  # outside pytest they would be printed before the message
    assert "None 6" in (project / "executed" / "01_topic.ipynb").read_text()
    assert run.last_run(project / "executed" / "01_topic.ipynb").startswith("failed 20")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_an_interrupted_run_ends_soon_and_with_a_remedy(project: Path, monkeypatch: pytest.MonkeyPatch,
                                                        capfd: pytest.CaptureFixture,
                                                        caplog: pytest.LogCaptureFixture) -> None:
    (project / "notebooks" / "01_topic.py").write_text(SOURCE + INTERRUPTED)
    monkeypatch.chdir(project)
    monkeypatch.setattr(logging.getLogger("asyncio"), "level", logging.NOTSET)  # restores it afterwards
    # A process that a shell has put into the background ignores the signal that a user at a terminal sends.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run.main(["01"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert (project / "begun").exists() and not (project / "ended").exists()
    gc.collect()  # asyncio reports what nobody has waited for when it is forgotten
    last = "notebook 01: interrupted\n  Remedy: run again; finished trainings are kept\n"
    assert capfd.readouterr().err.endswith(last)
    assert not caplog.records
    assert run.last_run(project / "executed" / "01_topic.ipynb").startswith("failed 20")


def test_the_summary_is_right_without_a_run_and_after_one(project: Path, monkeypatch: pytest.MonkeyPatch,
                                                          capsys: pytest.CaptureFixture) -> None:
    (project / "params.yaml").write_text("profile: laptop\ndataset: phantom\n")
    (project / "notebooks" / "13_review.py").write_text(SOURCE)
    for file in ("figures/phantom/01/a.png", "figures/phantom/01/a.csv", "figures/phantom/13/score.png",
                 "results/phantom/01_topic.csv", "results/acdc/01_topic.csv", "results/README.md"):
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).write_text("there")
    monkeypatch.chdir(project)
    assert run.main(["--summary"]) == 0
    assert capsys.readouterr().out == """Made of the data set phantom:
  01_topic (no executed copy): 1 figure in figures/phantom/01/, results/phantom/01_topic.csv
  13_review (no executed copy): 1 figure in figures/phantom/13/
To open:
  results/README.md: the results as tables
  figures/phantom/13/score.png: figure of notebook 13
To look at a notebook: source .venv/bin/activate; jupyter lab notebooks/13_review.ipynb
"""
    assert run.main(["13", "--dataset", "acdc", "--summary"]) == 2  # SOURCE has no such parameter
    assert run.main(["13", "--profile", "smoke", "--summary"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"13_review \(ran 20[-\d]+ \d\d:\d\d in \d+ s, profile smoke\): 1 figure", printed)
    assert printed.endswith("jupyter lab executed/13_review.ipynb\n")
    assert "executed/: the notebooks" in printed


LEAVING = SOURCE.replace("count = 3", 'dataset = "phantom"\ncount = 3') + '''
# %%
from cmri_lib.errors import NothingToDo
raise NothingToDo("audit: 2 patients in train", remedy="add patients")
'''
STAGE = """stages:
  topic:
    cmd: python -m cmri_lib.run 01
    outs:
      - work/${dataset}/${profile}/topic: {persist: true}
      - results/${dataset}/01_topic.csv: {cache: false}
      - results/${dataset}/01_topic_claims.csv: {cache: false}
      - figures/${dataset}/01: {cache: false}
  other:
    cmd: python -m cmri_lib.run 02
    outs:
      - results/${dataset}/02_other.csv
"""


def test_a_notebook_with_nothing_to_do_leaves_empty_tables_and_says_why(project: Path, monkeypatch: pytest.MonkeyPatch,
                                                                        capfd: pytest.CaptureFixture) -> None:
    (project / "params.yaml").write_text((Path(__file__).parents[1] / "params.yaml").read_text())
    (project / "dvc.yaml").write_text(STAGE)
    (project / "notebooks" / "01_topic.py").write_text(LEAVING)
    old = project / "figures" / "mine" / "01" / "old.png"
    trained = project / "work" / "mine" / "smoke" / "topic" / "weights"
    for file in (old, trained):
        file.parent.mkdir(parents=True)
        file.write_text("of an earlier run")
    monkeypatch.chdir(project)
    assert run.main(["01", "--profile", "smoke", "--dataset", "mine"]) == 0
    assert "notebook 01 is left out: audit: 2 patients in train" in capfd.readouterr().out
    results = project / "results" / "mine"
    assert pd.read_csv(results / "01_topic.csv").empty and "verdict" in pd.read_csv(results / "01_topic_claims.csv")
    why = pd.read_csv(old.with_name("left_out.csv"))
    assert why["why"].tolist() == ["audit: 2 patients in train"] and old.with_name("left_out.png").exists()
    assert not old.exists() and trained.exists() and not (results / "02_other.csv").exists()
    assert run.last_run(project / "executed" / "01_topic.ipynb").startswith("left out 20")


def test_nothing_to_do_is_an_error(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run.main([])
    assert "--summary" in capsys.readouterr().err
