"""Trainings, and what else does not need each other, at once: one process and one core each.

Small networks make poor use of a second core. Nothing else changes: whoever needs a training or a bank afterwards finds
on disk what would otherwise be made then.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr, suppress
from functools import cache

from accelerate import Accelerator
from joblib import delayed
from tqdm import tqdm

from cmri_lib.cohort.jobs import results, worker_count
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study
from cmri_lib.errors import StudyError
from cmri_lib.experiments.training import train_or_load
from cmri_lib.systems.system import Run


def train_all(study: Study, runs: Iterable[Run], slices: Slices,
              train: Callable[[Study, Run, Slices], object] = train_or_load) -> None:
    """Train every run that is not yet trained, by `train`; what others start from, or share, comes first.

    `workers` of ``params.yaml`` says how many at once (0: one per core, one on a GPU). With one, or if several processes were
    launched that share each training, this does nothing and `train_or_load` does all. Small networks leave most of a large GPU
    idle: sixteen at once, one per core, with CUDA's multi-process service (MPS), took 180 steps a second in all on an NVIDIA
    H200.

    Whoever comes to what another process is training waits for it (`training.kept`), be that a worker or a command of its own.
    """
    at_once(study, "trainings", [delayed(silently)(train, study, run, slices) for run in in_order(list(runs))])


def at_once(study: Study, what: str, jobs: Sequence[tuple]) -> None:
    """Run joblib's `delayed` jobs in as many processes as `workers_of` says; with one, nothing."""
    workers = workers_of(study)
    if workers > 1 and jobs:
        some = min(workers, len(jobs))
        for _ in tqdm(results(jobs, workers=some, ordered=False), total=len(jobs), desc=f"{what}, {some} at once"):
            pass


def workers_of(study: Study) -> int:
    """How many processes work at once, see `train_all`."""
    launched = Accelerator()
    if launched.num_processes > 1:
        return 1
    return worker_count(study.params.workers or int(launched.device.type != "cpu"))


def silently(job: Callable[..., object], *given: object, **more: object) -> None:
    """A job in a process of its own: its progress would mingle with that of others, its result stays on disk, and what is
    wrong with it is said when it is asked for again."""
    if multiprocessing.current_process().name != "MainProcess":
        end_with_parent()
    with redirect_stderr(io.StringIO()), suppress(StudyError):
        job(*given, **more)


@cache
def end_with_parent(seconds: float = 1.0) -> None:
    """From now on this process ends when the one that started it has been killed; it looks every so many seconds. Else it would
    go on with its training beside whoever takes that up again, and both would write the same files."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_order(runs: Sequence[Run]) -> list[Run]:
    """The runs, each once, so that few must wait for what another is training: first those that others start from (after their
    own), then one run for each first stage, then the rest."""
    starts = {_key(run.start): run.start for run in runs if run.start}
    first, rest, stages = [], [], set()
    for run in (one for key, one in {_key(run): run for run in runs}.items() if key not in starts):
        # A first stage that the pretrained run has too is trained with it.
        stage = _first_stage(run) if run.start is None or _first_stage(run.start) != _first_stage(run) else None
        (rest if stage and stage in stages else first).append(run)
        stages.add(stage)
    return [*(in_order(list(starts.values())) if starts else []), *first, *rest]


def _key(run: Run) -> tuple[str, str]:
    return run.stage, run.folder


def _first_stage(run: Run) -> tuple[str, str] | None:
    return (run.system.first_stage.stage, run.first_stage_folder) if run.system.first_stage else None

