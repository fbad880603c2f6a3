"""Processes that share a training train what one alone would: the same images, the same noise, the same losses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from training import train_shared

from cmri_lib.training import TrainSettings, train
from cmri_lib.training.batches import mixed_seed
from cmri_lib.training.checkpoint import read_note, read_tensors
from cmri_lib.training.shared import draws_of_share, places_in_batch

#: Relative difference of losses and gradients: sums of float32 in another order.
TOLERANCE = 2.0e-6


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What one process has trained, and what two have."""
    alone, two = (tmp_path_factory.mktemp(name) for name in ("alone", "two"))
    train_shared.main(alone)
    tests = Path(__file__).parents[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true",
                   "PYTHONPATH": os.pathsep.join(map(str, (tests.parent, tests)))}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
              train_shared.__file__, two]
    done = subprocess.run(launch, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return alone, two


@pytest.mark.parametrize("name", [*train_shared.models(), "cut"])
def test_two_processes_take_the_steps_of_one(folders: tuple[Path, Path], name: str) -> None:
    logs = [pd.read_csv(folder / name / "log.csv").drop(columns=["seconds", "images_per_s"]) for folder in folders]
    pd.testing.assert_frame_equal(*logs, rtol=TOLERANCE, atol=TOLERANCE, check_exact=False)
    assert len(logs[0]) == train_shared.SETTINGS.steps and logs[0].filter(like="loss_").nunique().min() > 1
    one, two = (read_tensors(folder / name / "weights.safetensors") for folder in folders)
    assert all(torch.allclose(one[k].float(), two[k].float(), atol=1e-3) for k in one), "kept in half precision"
    first = [read_note(folder / name / "weights.safetensors")["first_steps"] for folder in folders]
    assert first[0] == first[1] and len(first[0]) == train_shared.SETTINGS.steps


def test_a_training_cut_and_gone_on_with_is_the_uncut_one(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        cut, uncut = (read_tensors(folder / name / "weights.safetensors") for name in ("cut", "flow"))
        assert all(torch.equal(cut[k], uncut[k]) for k in cut)


def test_one_process_writes_and_all_draw(folders: tuple[Path, Path]) -> None:
    alone, two = ({str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} for folder in folders)
    assert two == alone | {"samples-1.npy"}
    samples = [np.load(file) for file in (folders[0] / "samples-0.npy", *sorted(folders[1].glob("samples-*.npy")))]
    assert len(samples) == 3 and all(np.allclose(samples[0], other, atol=1e-3) for other in samples[1:])


DRAWS = {"noise": lambda n: torch.randn_like(torch.zeros(n, 1, 6, 6)), "times": lambda n: torch.rand(n),
         "channels last": lambda n: torch.randn_like(torch.zeros(n, 3, 6, 6).to(memory_format=torch.channels_last)),
         "columns": lambda n: torch.rand(2, n, 3).movedim(1, 0), "sizes": lambda n: torch.randn((n, 5)),
         "integers": lambda n: torch.randint(0, 1000, (n,)), "size": lambda n: torch.randint(1000, size=(n, 2)),
         "one number": lambda n: torch.rand(()).expand(n),
         "twice": lambda n: torch.rand(n) + torch.rand(7).sum() + torch.randn(n),
         "places": lambda n: places_in_batch(n, torch.device("cpu"))}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("processes", [2, 3])
def test_shares_of_a_draw_make_the_draw_of_one_process(name: str, processes: int) -> None:
    parts, batch = [], 4 * processes
    for rank in range(processes):
        torch.manual_seed(3)
        with draws_of_share(batch, rank, processes):
            parts.append(DRAWS[name](batch // processes))
    torch.manual_seed(3)
    with draws_of_share(batch, 0, 1):
        whole = DRAWS[name](batch)
    assert torch.equal(torch.cat(parts), whole)


def test_compiled_each_process_draws_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = SimpleNamespace(mixed_precision="no", num_processes=2, process_index=1, is_main_process=False,
                             device=torch.device("cpu"), prepare=lambda part: part,
                             backward=lambda loss: loss.backward(), wait_for_everyone=lambda: None,
                             clip_grad_norm_=torch.nn.utils.clip_grad_norm_, reduce=lambda losses, how: losses)
    seeds: list[int] = []
    monkeypatch.setattr("cmri_lib.training.shared.Accelerator", lambda **_: second)
    monkeypatch.setattr("torch.compile", lambda model: model)
    monkeypatch.setattr("cmri_lib.training.loop.seed_draws", lambda device, *parts: seeds.append(mixed_seed(*parts)))
    for compiled in (False, True):
        settings = TrainSettings(steps=1, batch=4, compile=compiled)
        train(train_shared.Players(), train_shared.DATA, settings, tmp_path / str(compiled))
    assert mixed_seed(0, 0, 1) in seeds and seeds.count(mixed_seed(0, 0, 1)) == 1


def test_a_stream_of_its_own_is_left_alone() -> None:
    with draws_of_share(8, 1, 2):
        drawn = torch.randn(4, generator=torch.Generator().manual_seed(5))
    assert torch.equal(drawn, torch.randn(4, generator=torch.Generator().manual_seed(5)))
