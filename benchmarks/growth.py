"""How do time and memory grow with the number of images?

    python benchmarks/growth.py                                       # all parts, 1,000 to 100,000 images, three rounds
    python benchmarks/growth.py --parts audit --sizes 100000 --rounds 1 --memory

Reader and preprocessing go through the scans of the embedded cohort, again and again, a portion at a time, as one would with a
cohort of thousands; MMD and PRDC compare so many samples with 1,000 real slices; the audit looks for the nearest of so many
training slices to 10,000 samples, pixel by pixel. Every measurement is a process of its own, rounds are interleaved, and
``growth.csv`` has the median times and the largest memory: resident at the peak, the library itself (`idle_gib`) and what is
mapped from disk included; ``growth.png`` shows both. A run replaces its own rows and leaves the others, so pieces add up. Times
are worth something only where nothing else runs; ``--memory`` leaves them blank. What would need more memory than `--limit` is
left out, with a word.
"""

from __future__ import annotations

import argparse
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from joblib import delayed
from matplotlib.figure import Figure

from cmri_lib.cohort.case import PHASES, Case
from cmri_lib.cohort.jobs import results
from cmri_lib.cohort.preprocessing.pipeline import PreprocessSettings, preprocess
from cmri_lib.cohort.readers.cases import find_scans, layout_of, read_scan
from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import open_study
from cmri_lib.measures.fidelity.distances import bounded_distance
from cmri_lib.measures.fidelity.support import support
from cmri_lib.measures.instruments.classical_features import ClassicalFeatures
from cmri_lib.privacy.nearest_neighbours import Pixels, audit_neighbours
from cmri_lib.reporting.figures import legend_below, use_style

FILE = Path(__file__).with_suffix(".csv")
SIZES, PIXELS = (1_000, 10_000, 100_000), 64
#: Samples of the audit; real slices of every comparison; slices of a patient; scans read, and preprocessed, at once.
SAMPLES, REAL, PER_PATIENT, PORTION = 10_000, 1_000, 20, 32


@dataclass(frozen=True)
class Job:
    """One measurement: a part of the library, at so many images, on sets that lie in `folder`."""

    part: str
    images: int
    folder: Path


def scans(images: int) -> Iterator[list[Case]]:
    """Portions of cases of the embedded cohort, over and over, until they have so many images."""
    folder = open_study("overnight", "phantom").data
    entries, left = cycle(find_scans(folder, layout_of(folder))), images
    while left > 0:
        portion = list(results((delayed(read_scan)(files) for files in islice(entries, PORTION)), threads=True))
        left -= sum(len(case.volumes[phase].image) for case in portion for phase in PHASES)
        yield portion


def grown(base: Slices, count: int, split: str, seed: int, own_patients: bool = False) -> Slices:
    """So many slices: those of `base` in turn, each with noise of its own."""
    index, generator = np.arange(count) % len(base), np.random.default_rng(seed)
    images = base.images[index]
    for start in range(0, count, 4096):
        part = images[start:start + 4096]
        part += 0.1 * generator.standard_normal(part.shape, np.float32)
    names = [f"{split}-{seed}-{i if own_patients else i // PER_PATIENT}" for i in range(count)]
    table = base.table.iloc[index].assign(patient=names, scan=names, split=split)
    return Slices(images.clip(-1, 1), base.masks[index], table)


def write_sets(folder: Path, sizes: list[int]) -> None:
    """The sets that all jobs load."""
    cases = next(scans(1))
    settings = PreprocessSettings(size=PIXELS, crop="centre")
    base = preprocess(cases, settings, split={case.patient: "train" for case in cases})
    for seed, split in enumerate(("test", "holdout", "train")):
        grown(base, REAL, split, seed).save(folder / split)
    for count in sizes:
        grown(base, count, "train", 3).save(folder / f"training-{count}")
    for count in {SAMPLES, *sizes}:
        grown(base, count, "sample", 4, own_patients=True).save(folder / f"samples-{count}")


def read(job: Job) -> Callable[[], object]:
    return lambda: sum(len(portion) for portion in scans(job.images))


def prepare(job: Job) -> Callable[[], object]:
    portion = next(scans(1))
    each = sum(len(case.volumes[phase].image) for case in portion for phase in PHASES)
    split, settings = {case.patient: "train" for case in portion}, PreprocessSettings(size=PIXELS, crop="centre", jobs=1)
    return lambda: [len(preprocess(portion, settings, split=split)) for _ in range(-(-job.images // each))]


def features(job: Job) -> Callable[[], object]:
    samples = Slices.load(job.folder / f"samples-{job.images}")
    return lambda: ClassicalFeatures()(samples.images)


def compared(job: Job) -> Callable[[], object]:
    real, training, samples = (Slices.load(job.folder / name) for name in ("test", "train", f"samples-{job.images}"))
    space = ClassicalFeatures()
    measure = bounded_distance(space, training) if job.part == "mmd" else support(space)
    sets = measure.of(real=real, synthetic=samples)
    return lambda: measure.values(*sets)


def audited(job: Job) -> Callable[[], object]:
    sets = [Slices.load(job.folder / name) for name in ("test", f"samples-{SAMPLES}", f"training-{job.images}", "holdout")]
    return lambda: audit_neighbours(*sets, Pixels(), resamples=20)


PARTS = {"reader": read, "preprocessing": prepare, "features": features, "mmd": compared, "prdc": compared, "audit": audited}
#: Part → GiB that it needs beside its images, where that grows with the square of their number:
#: MMD keeps every pair of samples.
NEEDS = {"mmd": lambda images: 5 * 8 * images**2 / 2**30}
#: GiB that the audit of 10,000 samples against 100,000 training slices may take.
ALLOWED = 4.0
#: What parts are called in the figure, where that is not their name.
NAMES = {"mmd": "MMD", "prdc": "PRDC", "audit": f"audit of {SAMPLES:,} samples"}


def peak_memory() -> float:
    """GiB that this process has had at most. Linux counts a new process's peak from its parent's on, but for VmHWM."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if platform.system() == "Darwin" else 2**20)


def measure(job: Job) -> dict[str, object]:
    """Seconds of the part alone, and the memory of its process."""
    idle = peak_memory()
    run = PARTS[job.part](job)
    started = time.perf_counter()
    run()
    return {"part": job.part, "images": job.images, "seconds": time.perf_counter() - started, "peak_gib": peak_memory(),
            "idle_gib": idle}


def in_turn(jobs: list[Job], rounds: int) -> pd.DataFrame:
    """All jobs, round after round, each in a process of its own."""
    found = []
    for number in range(rounds):
        for job in jobs:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as one:
                found.append(one.submit(measure, job).result())
            last = found[-1]
            print(f"round {number + 1}: {last['images']} images, {last['part']}, {last['seconds']:.1f} s, "
                  f"{last['peak_gib']:.2f} GiB", flush=True)
    return pd.DataFrame(found)


def summary(found: pd.DataFrame, memory: bool) -> pd.DataFrame:
    """One row per part and number of images: medians of time, the most memory."""
    table = found.groupby(["part", "images"], sort=False).agg(
        seconds=("seconds", "median"), peak_gib=("peak_gib", "max"), idle_gib=("idle_gib", "max"), rounds=("seconds", "size")
    ).reset_index()
    table.insert(3, "images_per_s", table["images"] / table["seconds"])
    return table.assign(seconds=np.nan, images_per_s=np.nan) if memory else table


def joined(before: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """`before` with the rows of `new` in the place of its own, in the order of parts and sizes."""
    key = ["part", "images"]
    kept = before[~pd.MultiIndex.from_frame(before[key]).isin(pd.MultiIndex.from_frame(new[key]))]
    table = pd.concat([part for part in (kept, new) if len(part)])
    return table.sort_values(key, key=lambda c: c.map(list(PARTS).index) if c.name == "part" else c, ignore_index=True)


def draw(table: pd.DataFrame) -> Figure:
    """Seconds, and memory at the peak, against the number of images, a line for each part. Columns: part, images, seconds
    (missing where they were not measured), peak_gib."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    lines = {}
    for part, rows in table.groupby("part", sort=False):
        timed = rows[rows["seconds"].notna()]
        line, = axes[0].plot(timed["images"], timed["seconds"], marker="o", ms=4)
        axes[1].plot(rows["images"], rows["peak_gib"], marker="o", ms=4, color=line.get_color())
        lines[NAMES.get(part, part)] = line
    lines[f"{ALLOWED:g} GiB, the audit's limit"] = axes[1].axhline(ALLOWED, ls="--", lw=1, color="0.3")
    for axis, title in zip(axes, ("seconds", "memory at the peak, the library's own included (GiB)")):
        axis.set(xscale="log", xlabel="images", title=title)
    axes[0].set_yscale("log")
    axes[1].set_ylim(bottom=0)
    legend_below(figure, lines)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="numbers of images")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=8.0, help="GiB that a part may need")
    parser.add_argument("--memory", action="store_true", help="other work runs: leave the times blank")
    options = parser.parse_args()
    wanted = [(part, size) for size in options.sizes for part in options.parts]
    for part, size in wanted:
        if (need := NEEDS.get(part, lambda images: 0.0)(size)) > options.limit:
            print(f"left out: {part} of {size} images needs {need:.0f} GiB")
    with tempfile.TemporaryDirectory() as name:
        write_sets(Path(name), options.sizes)
        jobs = [Job(part, size, Path(name)) for part, size in wanted
                if NEEDS.get(part, lambda images: 0.0)(size) <= options.limit]
        table = summary(in_turn(jobs, options.rounds), options.memory)
    table = table.assign(pixels=PIXELS, machine=platform.machine())
    joined(pd.read_csv(FILE) if FILE.exists() else table.iloc[:0], table).to_csv(FILE, index=False, float_format="%.4g")
    use_style()
    draw(pd.read_csv(FILE)).savefig(FILE.with_suffix(".png"), metadata={"Software": None})
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
