"""What do few network evaluations cost, against a hundred or a thousand?

    python benchmarks/few_steps.py                                     # all systems, of the published trainings
    python benchmarks/few_steps.py --systems "U10 FM" --most 100       # without its sampler of a thousand
    python benchmarks/few_steps.py --only-drawn                        # score what has been drawn so far

Each system draws with the same weights, from the same noise, as many images by every sampler in `ARMS`: the long ones, and the
study's own within 8 evaluations, its default sampler first. ``few_steps.csv`` has for each the distance of anatomy, that of
appearance and the share of valid hearts, with interval (95 %, over patients) and floor; and where `minus` names a long sampler,
the difference few − many of the same metric, paired over patients and over noise. ``few_steps.png`` shows the former.

`evaluations` are counted at the network: sampling leaves out the last few of 1000 levels of noise, where an image is below 1 %
of the noise, so ancestral sampling makes a few less. `seconds_per_image` is processor time of one thread, so that what else the
machine does matters little. Images are kept below work/, a portion at a time, and a run that was stopped goes on; it replaces
the rows of its own systems and leaves the others; a sampler that has no row has not been measured. Slices and instruments are
those that notebook 01 leaves in work/.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.study import Study, open_study
from cmri_lib.experiments import instruments
from cmri_lib.experiments.banks import KEY_FILE, drawing_digest, kept_bank
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.training import train_or_load
from cmri_lib.generators.base import Generator, as_own_patients, chunks, seeded_noise
from cmri_lib.reporting.figures import legend_below, use_style
from cmri_lib.reporting.metrics import label
from cmri_lib.reporting.primary_tests import ANATOMY, APPEARANCE, HEARTS
from cmri_lib.systems.system import Run, file_name
from cmri_lib.systems.unconditional import UNCONDITIONAL
from cmri_lib.training.fingerprint import digest

ROOT = Path(__file__).resolve().parents[1]
FILE = Path(__file__).with_suffix(".csv")
METRICS = (ANATOMY, APPEARANCE, HEARTS)
#: Images drawn, and kept, at once.
PORTION = 26


@dataclass(frozen=True)
class Arm:
    """A sampler with so many steps; `choices` are for `Generator.sample`; `many`: one that the others are compared with."""

    sampler: str
    steps: int
    many: bool = False
    choices: dict[str, object] = field(default_factory=dict)


def _diffusion(sampler: str, steps: int, many: bool = False) -> Arm:
    return Arm(sampler, steps, many, {"sampler": sampler, "steps": steps})


def _flow(solver: str, steps: int, many: bool = False) -> Arm:
    return Arm(solver, steps, many, {"solver": solver, "steps": steps})


DIFFUSION = (_diffusion("dpm-solver", 8), _diffusion("ddim", 8), _diffusion("dpm-solver", 4), _diffusion("ddpm", 8),
             _diffusion("ddpm", 1000, many=True))
#: Unconditional systems and their samplers: the study's own first, those of many evaluations last.
ARMS: dict[str, tuple[Arm, ...]] = {
    "U6 DDPM": DIFFUSION,
    "U7 LDM-KL": DIFFUSION,
    "U10 FM": (_flow("midpoint", 4), _flow("midpoint", 2), _flow("heun", 4), _flow("euler", 8), _flow("euler", 100, many=True),
               _flow("euler", 1000, many=True))}


@dataclass(frozen=True)
class Drawn:
    """Samples of one arm; network evaluations, and processor seconds, per image."""

    arm: Arm
    bank: Slices
    evaluations: int
    seconds: float


# --- drawing
@contextmanager
def counted(generator: Generator) -> Iterator[list[int]]:
    """The calls of the network that draws, the prior's where there is one, as the length of a list."""
    calls: list[int] = []
    network = getattr(generator, "prior", generator).network
    hook = network.register_forward_hook(lambda *_: calls.append(1))
    try:
        yield calls
    finally:
        hook.remove()


@torch.no_grad()
def portion(generator: Generator, conditions: Slices, rows: range, seed: int, arm: Arm) -> tuple[np.ndarray, int, float]:
    """Images (rows, S, S) as `generators.base.draw` makes them of an unconditional system, network evaluations of each, and
    processor seconds for all."""
    noise = seeded_noise(seed, rows, generator.noise_shape(conditions.size)).to(generator.device)
    with counted(generator) as calls:
        started = time.process_time()
        images = generator.sample(noise, {}, **arm.choices).clamp(-1, 1).float().cpu().numpy()
        return images, len(calls), time.process_time() - started


def drawn(generator: Generator, conditions: Slices, source: str, seed: int, arm: Arm, folder: Path, size: int = PORTION,
          only_drawn: bool = False) -> Drawn | None:
    """One sample for every slice of `conditions`, `size` at a time, each portion kept in `folder` with what it took. With
    `only_drawn`, None unless all of it is there."""
    generator.eval()
    parts, notes, weights = [], [], drawing_digest(generator)
    for rows in chunks(len(conditions), size):
        place = folder / f"{rows.start}-{rows.stop}"
        key, note = digest([f"{weights} {seed} {rows} {conditions.size} {arm.choices}".encode()]), place.with_suffix(".json")
        whole = (place / KEY_FILE).exists() and note.exists() and json.loads(note.read_text(encoding="utf-8"))["key"] == key
        if only_drawn and not whole:
            return None

        def make(_: int, rows: range = rows, key: str = key, note: Path = note) -> Slices:
            images, evaluations, seconds = portion(generator, conditions, rows, seed, arm)
            note.write_text(json.dumps({"key": key, "evaluations": evaluations, "seconds": seconds}), encoding="utf-8")
            print(f"{source} {arm.sampler} {evaluations}: images {rows.start} to {rows.stop}, {seconds:.0f} s", flush=True)
            some = conditions.take(rows)
            return Slices(images, np.zeros_like(some.masks), as_own_patients(some.table, source, ()))

        parts.append(kept_bank(place, key, len(rows), make).images)
        notes.append(json.loads(note.read_text(encoding="utf-8")))
    images = np.concatenate(parts)
    bank = Slices(images, np.zeros_like(conditions.masks), as_own_patients(conditions.table, source, ()))
    return Drawn(arm, bank, notes[0]["evaluations"], sum(note["seconds"] for note in notes) / len(images))


def draw_all(study: Study, slices: Slices, conditions: Slices, system: str, most: int, only_drawn: bool) -> list[Drawn]:
    """The samples of all arms of a system, of its published training, but for those of more than `most` steps."""
    run = Run(UNCONDITIONAL[system])
    generator = train_or_load(study, run, slices)
    below = study.work("few_steps") / file_name(system)
    found = [drawn(generator, conditions, run.id, study.seed, arm, below / file_name(f"{arm.sampler} {arm.steps}"),
                   only_drawn=only_drawn) for arm in ARMS[system] if arm.steps <= most]
    return [one for one in found if one is not None]


# --- scoring
def judge(study: Study, slices: Slices, images: int) -> Evaluator:
    """The study's evaluator, of the three metrics alone."""
    brief = Evaluator(study, slices, images)
    return Evaluator(study, slices, images, [m for m in brief.measures if {metric.name for metric in m.metrics} & {*METRICS}])


def scored(evaluator: Evaluator, system: str, arms: list[Drawn]) -> list[dict[str, object]]:
    """Rows of every arm and, with `minus`, of every arm of few evaluations less each of many."""
    rows = []
    for one in arms:
        about = {"system": system, "sampler": one.arm.sampler, "evaluations": one.evaluations, "minus": "",
                 "images": len(one.bank), "seconds_per_image": one.seconds}
        rows += [about | {name: row[name] for name in ("metric", "value", "low", "high", "floor")}
                 for row in evaluator.rows(Run(UNCONDITIONAL[system]), one.bank) if row["metric"] in METRICS]
    for few in (one for one in arms if not one.arm.many):
        for many in (one for one in arms if one.arm.many):
            for metric in METRICS:
                score = evaluator.difference(few.bank, many.bank, metric)
                rows.append({"system": system, "sampler": few.arm.sampler, "evaluations": few.evaluations,
                             "minus": f"{many.arm.sampler} {many.evaluations}", "images": len(few.bank),
                             "seconds_per_image": few.seconds, "metric": metric, "value": score.value, "low": score.low,
                             "high": score.high})
    return rows


def joined(before: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """`before` with the rows of the systems in `new`, of the same cohort and profile, in the place of its own, in the order of
    `ARMS`."""
    names = ["dataset", "profile", "system"]
    kept = before[~pd.MultiIndex.from_frame(before[names]).isin(pd.MultiIndex.from_frame(new[names]))]
    table = pd.concat([part for part in (kept, new) if len(part)])
    return table.sort_values("system", key=lambda c: c.map(list(ARMS).index), kind="stable", ignore_index=True)


def plot(table: pd.DataFrame) -> Figure:
    """Each metric against network evaluations, with intervals; samplers by colour, systems by marker, and the floor."""
    values = table[table["minus"].fillna("") == ""]
    lines = list(dict.fromkeys(zip(values["system"], values["sampler"])))
    figure, axes = plt.subplots(1, len(METRICS), figsize=(10, 4), layout="constrained")
    colours = {name: f"C{k}" for k, name in enumerate(values["sampler"].unique())}
    markers = dict(zip(values["system"].unique(), "os^Dv"))
    handles = {}
    for axis, metric in zip(axes, METRICS):
        rows = values[values["metric"] == metric]
        for (system, sampler), part in rows.groupby(["system", "sampler"], sort=False):
            x = part["evaluations"] * 1.06 ** (lines.index((system, sampler)) - (len(lines) - 1) / 2)  # beside each other
            error = [part["value"] - part["low"], part["high"] - part["value"]]
            line = axis.errorbar(x, part["value"], yerr=np.maximum(error, 0), color=colours[sampler], ms=5, lw=1, capsize=2,
                                 marker=markers[system], ls="")
            handles[f"{system}, {sampler}"] = line
        handles["real patients against others"] = axis.axhline(rows["floor"].mean(), ls="--", lw=1, color="0.3")
        axis.set(xscale="log", xlabel="network evaluations per image", title=label(metric))
    legend_below(figure, handles)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default="phantom")
    parser.add_argument("--profile", default="overnight")
    parser.add_argument("--systems", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--images", type=int, default=72, help="of every arm, rounded up to whole phases of scans")
    parser.add_argument("--most", type=int, default=1000, help="leave out samplers of more steps")
    parser.add_argument("--only-drawn", action="store_true", help="draw nothing: score what is complete")
    options = parser.parse_args()
    os.environ["ACCELERATE_USE_CPU"] = "true"  # seconds are those of a thread
    torch.set_num_threads(1)
    study = open_study(options.profile, options.dataset, ROOT)
    slices = instruments.load_slices(study)
    evaluator = judge(study, slices, options.images)
    for system in options.systems:
        arms = draw_all(study, slices, evaluator.conditions, system, options.most, options.only_drawn)
        if not arms:
            print(f"{system}: nothing is drawn yet")
            continue
        table = pd.DataFrame(scored(evaluator, system, arms)).assign(dataset=study.dataset, profile=study.profile)
        joined(pd.read_csv(FILE) if FILE.exists() else table.iloc[:0], table).to_csv(FILE, index=False, float_format="%.6g")
        print(table.drop(columns=["dataset", "profile"]).round(4).to_string(index=False), flush=True)
    if FILE.exists():
        use_style()
        every = pd.read_csv(FILE)
        chosen = every[(every["dataset"] == study.dataset) & (every["profile"] == study.profile)]
        plot(chosen).savefig(FILE.with_suffix(".png"), metadata={"Software": None})


if __name__ == "__main__":
    main()
