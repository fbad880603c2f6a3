"""Jobs that need not wait for each other, through joblib: whoever calls the library says where they run.

    with joblib.parallel_config(backend="dask"):      # a cluster: connect a dask.distributed.Client first
        cohort = read_dataset("data/phantom-large")
        slices = preprocess(cohort.cases, settings, split=split)

Results are the same wherever they run. Without such a context reading and audits go one after the other, and what has a
setting of its own (`preprocess.jobs`, `workers`) follows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from joblib import Parallel, effective_n_jobs
from joblib.parallel import get_active_backend


def results(jobs: Iterable[tuple], *, workers: int | None = None, threads: bool = False, ordered: bool = True) -> Iterator[Any]:
    """Results of ``delayed(function)(…)``, each as soon as it is there, or in the order of the jobs.

    Args:
        workers: how many at once; None: as many as the context says, else one.
        threads: prefer threads, for jobs that do not hold Python's lock, or share what they look up.
    """
    backend, _ = get_active_backend(prefer="threads" if threads else None)
    how = "generator" if ordered else "generator_unordered"
    streams = getattr(backend, "supports_return_generator", False)  # Dask's backend gives all at the end
    return iter(Parallel(n_jobs=workers, prefer="threads" if threads else None, return_as=how if streams else "list")(jobs))


def worker_count(asked: int) -> int:
    """How many jobs at once: as many as were `asked` for, or with 0 one for each core of the machine, or of the cluster."""
    return asked or effective_n_jobs(-1)
