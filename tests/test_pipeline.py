"""The whole pipeline under DVC, in the smoke profile, in a clone: it runs, it caches, it retrains what it must and no more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import yaml

from cmri_lib.systems.conditional import CONDITIONAL
from cmri_lib.systems.label_maps import CHAINS
from cmri_lib.systems.unconditional import UNCONDITIONAL

ROOT = Path(__file__).parents[1]
#: Stages that train and draw samples.
FAMILIES = {"vae", "gan", "diffusion", "flow"}
pytestmark = pytest.mark.pipeline


def python(folder: Path, *arguments: str) -> str:
    """Run ``python -m`` something; returns what it printed, fails with it."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                   "PYTHONPATH": str(folder), "TQDM_DISABLE": "1",
                   "OMP_NUM_THREADS": "1"}  # small tensors; what else runs, stages and tests, takes the other cores
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=folder, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def dvc(folder: Path, *arguments: str) -> str:
    """Run a DVC command."""
    return python(folder, "dvc", *arguments)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) >= 1, f"{old!r} is not in {file.name}"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def stale_stages(folder: Path) -> set[str]:
    """Stages that `dvc repro` would run, or of which something before them has changed; but for the book, which shows all."""
    return {line.split(":")[0] for line in dvc(folder, "status").splitlines() if line and not line[0].isspace()} - {"book"}


def weights(folder: Path) -> dict[str, int]:
    """Time of writing of every trained network, by its folder."""
    return {f.parent.name: f.stat().st_mtime_ns for f in folder.glob("work/phantom/smoke/*/*/weights.safetensors")}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git tracks, as it is now, in an empty folder; the smoke profile run to its end."""
    folder = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    (folder / "dvc.lock").unlink()  # of the published run; DVC would read and write all of it again after every stage
    edit(folder / "params.yaml", "profile: overnight", "profile: smoke")
    dvc(folder, "pull", "data.dvc", "trainings.dvc")
    # DVC lets other commands in while the command of a stage runs: stages that do not need each other go side by side.
    with ThreadPoolExecutor(2) as hands:
        for one, other in ((["cohort"], ["contrast"]), (["diffusion", "gan"], ["vae", "flow"]),
                           (["conditional"], ["fidelity", "differential_privacy"]),
                           (["masks", "utility", "cross_vendor"], ["privacy", "translation", "volumes"]), (["teaching"], [])):
            list(hands.map(lambda stages: stages and dvc(folder, "--wait-for-lock", "repro", "--single-item", *stages),
                           (one, other)))
    printed = dvc(folder, "repro", "--pull")  # what is left
    assert "Stage 'conditional' didn't change" in printed and "Running stage 'review'" in printed
    assert "every link leads somewhere" in printed  # of the book
    return folder


def test_every_figure_and_table_is_written(clone: Path) -> None:
    stages = yaml.safe_load((clone / "dvc.yaml").read_text())["stages"]
    outs = [next(iter(o)) if isinstance(o, dict) else o for s in stages.values() for o in [*s["outs"], *s.get("metrics", [])]]
    missing = [o for o in outs if not (clone / o.replace("${dataset}", "phantom").replace("${profile}", "smoke")).exists()]
    assert not missing
    figures = [f for f in clone.glob("figures/phantom/*/*.png") if not f.with_suffix(".csv").exists()]
    assert not figures, f"{figures} have no numbers behind them"
    scores = pd.read_csv(clone / "results" / "scores.csv").query("dataset == 'phantom' and profile == 'smoke'")
    assert {"real", *UNCONDITIONAL, *CONDITIONAL, *CHAINS} <= set(scores["system"])
    assert {"fidelity", "anatomy", "conditioning", "utility", "privacy", "cost"} <= set(scores["axis"])


def test_the_plan_holds_no_training_that_no_notebook_makes(clone: Path) -> None:
    """A night's training would be spent on it, and its stage could never be drawn again from what is published."""
    stood = python(clone, "cmri_lib.train", "status")
    assert " done" in stood and " to do" not in stood, stood


def test_a_second_run_has_nothing_to_do(clone: Path) -> None:
    assert "up to date" in dvc(clone, "repro", "--pull")


def test_a_parameter_invalidates_the_stages_that_use_it(clone: Path) -> None:
    def stale(old: str, new: str) -> set[str]:
        edit(clone / "params.yaml", old, new)
        found = stale_stages(clone)
        edit(clone / "params.yaml", new, old)
        return found

    # Trained from several families.
    own = {"conditional", "masks", "utility", "teaching", "cross_vendor", "privacy", "differential_privacy", "translation",
           "volumes"}
    assert stale("profile: smoke", "profile: overnight") == {"cohort", *FAMILIES, "fidelity", *own, "contrast", "review"}
    assert stale("coupling: ot ", "coupling: independent ") == {"flow", "fidelity", *own} - {"masks"}
    assert stale("samples: {smoke: 48", "samples: {smoke: 44") == {*FAMILIES, "fidelity", "translation"}
    assert stale("ada_target: 0.6", "ada_target: 0.5") == {"gan", "fidelity", "teaching", "privacy"}
    assert stale("normalise: minmax", "normalise: zscore") == {"cohort", "cross_vendor", "translation"}
    assert "up to date" in dvc(clone, "status")


def test_prose_retrains_nothing_and_code_retrains_its_own(clone: Path) -> None:
    before = weights(clone)
    untouched = {"detector", "segmenter", "features", "u10-ot-fm", "u10-fm-mask"}
    assert {"u1-vae", *untouched} <= set(before)
    code = clone / "cmri_lib" / "generators" / "vae.py"
    edit(clone / "notebooks" / "02_vae.py", "## Limits", "## What this cannot tell")
    edit(code, "the best that the code can hold.", "as well as the code can hold them.")
    assert stale_stages(clone) & {"cohort", *FAMILIES} == {"vae"}
    python(clone, "cmri_lib.train", "U1 VAE")  # as the notebook would, without what else it does
    assert weights(clone) == before, "prose retrained a network"

    edit(code, "0.5 * (mean.square()", "0.4 * (mean.square()")
    # C14's first stage is a VAE, and so are C4's source of masks and C11; the other stages use systems of all families.
    others = {"conditional", "masks", "utility", "teaching", "cross_vendor", "privacy", "volumes", "contrast"}
    assert {"vae", *others} <= stale_stages(clone) <= {"vae", "fidelity", *others, "review"}
    python(clone, "cmri_lib.train", "U1 VAE", "U10 OT-FM", "U10 FM + mask")
    after = weights(clone)
    changed = {name for name in before if after[name] != before[name]}
    assert {"u1-vae"} <= changed and not changed & untouched


def test_metrics_and_plots_can_be_compared(clone: Path) -> None:
    assert "U10 FM + mask dice_mean" in dvc(clone, "metrics", "show")
    assert (clone / "out.html").exists() or "html" in dvc(clone, "plots", "show", "-o", "plots")
