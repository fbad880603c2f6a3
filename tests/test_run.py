"""The runner: refuses what a notebook does not know, never touches the source, fails loudly."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from papermill.exceptions import PapermillExecutionError

from cmri_lib import run
from cmri_lib.errors import ParameterError

SOURCE = '''# %% tags=["parameters"]
profile = None
count = 3

# %%
print(profile, count * 2)
assert count < 10
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
    bar = "import sys\nfor k in range(4):\n    print(f'\\r{k}/3', end='', file=sys.stderr, flush=True)\nprint(file=sys.stderr)\n"
    (project / "notebooks" / "01_topic.py").write_text(f"{SOURCE}\n# %%\n{bar}print('done')\n")
    outputs = nbformat.read(run.run("01", {}, project), 4).cells[-1].outputs
    said = {name: "".join(o.text for o in outputs if o.name == name) for name in ("stderr", "stdout")}
    assert said == {"stderr": "3/3\n", "stdout": "done\n"}


@pytest.mark.parametrize(("parameters", "match"), [({"cuont": 1}, "cuont"), ({"count": "4"}, "not int"), ({"profile": 3}, "not str")])
def test_unknown_or_mistyped_parameters_never_start(project: Path, parameters: dict, match: str) -> None:
    with pytest.raises(ParameterError, match=match):
        run.run("01", parameters, project)
    assert not (project / "executed").exists()


def test_missing_notebooks_and_parameter_cells_are_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match="01_topic"):
        run.run("02", {}, project)
    (project / "notebooks" / "01_topic.py").write_text("# %%\nx = 1\n")
    with pytest.raises(ParameterError, match="parameters"):
        run.run("01", {}, project)
    monkeypatch.chdir(project)
    assert run.main(["02"]) == 2
