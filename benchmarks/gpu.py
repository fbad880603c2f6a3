"""What does the study cost on one GPU?

    python benchmarks/gpu.py [--profile gpu] [--parts matrix steps systems together settings] [--seconds 5]
    python benchmarks/gpu.py --page

It needs the slices that notebook 01 leaves in work/, and writes ``gpu.csv``, where parts that are not asked for stay
as they are. The parts:

- matrix: the rate of a large matrix product in bfloat16, the device's measured limit.
- steps: the training step of U10 FM as the profile's network is, by the stock loop (float32, AdamW, a data loader,
  nothing else) and by the study's, with one thing after the other that makes it faster; the share of the matrix rate is
  by the operations that PyTorch counts in a step.
- together: several such trainings at once, a process each; under CUDA's multi-process service (MPS) if it runs.
- systems: every system of the register with its own settings, the first stage of a latent system beside it.
- settings: optimisers and learning rates of U10 FM: the loss of validation patients after half of the steps.

``--page`` measures nothing: it extrapolates what all trainings of the profile would take, and writes that and the table
of steps into ``CONTRIBUTING.md``. What fails is reported, and the others go on.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import textwrap
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch
from accelerate import Accelerator

from cmri_lib.cohort.cardiac_function import with_phenotypes
from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import Study, open_study
from cmri_lib.experiments.instruments import load_slices
from cmri_lib.experiments.plan import all_runs
from cmri_lib.experiments.training import training_slices
from cmri_lib.generators.base import training_batch
from cmri_lib.generators.flow import FlowMatching
from cmri_lib.networks.conditioning.base import Batch, Conditioning
from cmri_lib.systems.register import SYSTEMS, system
from cmri_lib.systems.system import Run
from cmri_lib.training import TrainSettings, train
from cmri_lib.training.loop import Trainable, Training, device_name
from scaling import PAGE, published, step_flops
from time_to_quality import stock_steps

ROOT = Path(__file__).resolve().parents[1]
FILE = Path(__file__).with_suffix(".csv")
BEGIN = "<!-- python benchmarks/gpu.py --page -->"
SYSTEM = "U10 FM"
PARTS = ("matrix", "steps", "systems", "together", "settings")
#: Added one after the other: name → what it changes of the settings.
FASTER = {"study, float32": {"precision": "no"}, "+ recorded": {"precision": "no"}, "+ bfloat16": {"precision": "bf16"},
          "+ channels last": {"precision": "bf16", "channels_last": True},
          "+ compiled": {"precision": "bf16", "channels_last": True, "compile": True}}
#: The first variant that lets a GPU replay what it has recorded.
RECORDED_FROM = 1
#: Half of a training of U10 FM with each of these optimisers and learning rates.
TRIED = (("adamw", 3e-4), ("adamw", 1e-3), ("muon", 4e-3), ("muon", 8e-3))
#: Images that a system learns from here: its data stay on the device, and their number changes nothing.
IMAGES = 512
Row = dict[str, object]


def device() -> torch.device:
    return Accelerator().device


@cache
def cohort(profile: str) -> tuple[Study, Slices]:
    study = open_study(profile, "phantom", ROOT)
    return study, with_phenotypes(load_slices(study))


def unnoted() -> AbstractContextManager:
    """Without the first steps that a training on a GPU has repeated on a CPU beforehand."""
    return patch.object(Training, "replay", lambda self, steps: [])


def timed(model: Trainable, data: Batch, settings: TrainSettings, seconds: float) -> Row:
    """A short training tells how many steps fit into the time; then the second half of a longer one is timed."""
    on_gpu = device().type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder, unnoted():
        def pace(steps: int) -> tuple[float, float]:
            each = replace(settings, steps=steps, log_every=steps // 2, snapshots=0, validate_every=0)
            log = train(model, data, each, Path(folder) / str(steps), checkpoint_seconds=1e9)
            (first, last), (half, whole) = log["step"], log["seconds"]
            return (whole - half) / (last - first), half

        trial, start = pace(12)
        step, _ = pace(2 * max(6, int(seconds / 2 / trial)))
    found = {"steps_per_s": 1 / step, "images_per_s": settings.batch / step, "batch": settings.batch, "start_s": start}
    return found | ({"peak_gib": torch.cuda.max_memory_allocated() / 2**30} if on_gpu else {})


# --- matrix
def matrix_rate(size: int = 8192, seconds: float = 1.0) -> Row:
    """Floating-point operations per second of a product of two square matrices, random, in bfloat16."""
    here = device()
    size = size if here.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=here, dtype=torch.bfloat16) for _ in "ab")

    def run(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            found = a @ b
        found[0, 0].item()  # waits for the device
        return time.perf_counter() - started

    run(3)
    count = max(3, int(seconds / run(3) * 3))
    return {"tflop_per_s": 2 * size**3 * count / run(count) / 1e12}


# --- steps
def flow_step(profile: str, variant: str, seconds: float) -> Row:
    """One variant of the study's loop, or the stock loop."""
    study, slices = cohort(profile)
    flow = system(SYSTEM).build(study.params, Vocabulary({}), study.seed)
    data = training_batch(slices.where(split="train"), Conditioning())
    flops = step_flops(flow, slices.size)
    if variant == "stock":
        found = stock(flow.to(device()), data["image"], study.params.flow.training, seconds)
    else:
        eager = list(FASTER).index(variant) < RECORDED_FROM
        with patch.object(FlowMatching, "recordable", False) if eager else nullcontext():
            found = timed(flow, data, replace(study.params.flow.training, **FASTER[variant]), seconds)
    parameters = sum(p.numel() for p in flow.parameters())
    return found | {"tflop_per_s": flops * found["images_per_s"] / 1e12, "parameters": parameters}


def stock(flow: FlowMatching, images: torch.Tensor, settings: TrainSettings, seconds: float) -> Row:
    """The stock loop, with the same network and the same batch."""
    losses = stock_steps(flow, {"image": images}, settings.learning_rate, settings.batch)

    def run(seconds: float) -> tuple[int, float]:
        started = time.perf_counter()
        for steps, loss in enumerate(losses, 1):
            loss.item()  # tutorials print it
            if time.perf_counter() - started >= seconds:
                return steps, time.perf_counter() - started

    _, start = run(0)
    run(1)
    steps, took = run(seconds)
    return {"steps_per_s": steps / took, "images_per_s": steps * settings.batch / took, "batch": settings.batch,
            "start_s": start}


# --- systems
def of_system(profile: str, name: str, first_stage: bool, seconds: float) -> Row:
    """One system, or its first stage, with its own settings."""
    model, settings, data, _ = ready(profile, name, first_stage, IMAGES)
    return timed(model, data, settings, seconds)


def ready(profile: str, name: str, first_stage: bool = False, images: int | None = None
          ) -> tuple[Trainable, TrainSettings, Batch, Batch]:
    """What a system, or its first stage, trains with: untrained on the device, settings, images, and those of validation."""
    study, slices = cohort(profile)
    params, run = study.params, Run(SYSTEMS[name])
    some = [part.take(range(len(part))[:images]) for part in training_slices(run, slices)]
    generator = run.system.build(params, Vocabulary.of(slices), study.seed).to(device())
    if first_stage:
        model, settings = generator.first_stage, run.first_stage_settings(params, study.seed)
        conditioning = getattr(model, "conditioning", Conditioning())
        return model, settings, *(run.system.batch(part, conditioning, params) for part in some)
    data = (generator.prepare(run.system.batch(part, generator.conditioning, params)) for part in some)
    return generator, run.settings(params, study.seed), *data


# --- settings
def tried(profile: str, optimiser: str, rate: float) -> Row:
    """The validation loss of the flow after half of its steps."""
    model, settings, data, unseen = ready(profile, SYSTEM)
    steps = settings.steps // 2
    settings = replace(settings, steps=steps, optimiser=optimiser, learning_rate=rate, validate_every=steps, snapshots=0)
    with tempfile.TemporaryDirectory() as folder, unnoted():
        log = train(model, data, settings, folder, validation=unseen)
    return {"part": "settings", "variant": f"{optimiser}, {rate:g}", "steps": steps,
            "validation_loss": log["validation_loss"].iloc[-1], "seconds": log["seconds"].iloc[-1]}


# --- page
def whole_profile(profile: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Hours of all trainings of the profile, one after the other: family → hours, trainings. A training takes as long a
    step as its system, or else as the mean of its family, or of all that were measured."""
    study, slices = cohort(profile)
    paces = rows[rows["part"] == "systems"].set_index("variant")["steps_per_s"]
    flow = rows[(rows["part"] == "steps") & (rows["variant"] == "+ bfloat16")].set_index("variant")["steps_per_s"]
    step = 1 / pd.concat([flow.rename({"+ bfloat16": SYSTEM}), paces]).groupby(level=0).last()
    families = step.groupby(lambda name: SYSTEMS[name].family if name in SYSTEMS else "first stage").mean()
    found, met = [], set()
    for run in all_runs(study, slices):
        each = step.get(run.system.id, families.get(run.family, families.mean()))
        found.append({"family": run.family, "hours": each * run.settings(study.params, study.seed).steps / 3600})
        stage = run.system.first_stage
        if stage is not None and (stage.stage, run.first_stage_folder) not in met:
            met.add((stage.stage, run.first_stage_folder))
            hours = families["first stage"] * run.first_stage_settings(study.params, study.seed).steps / 3600
            found.append({"family": "first stage", "hours": hours})
    return pd.DataFrame(found).groupby("family")["hours"].agg(hours="sum", trainings="size").sort_values("hours")


def table(rows: pd.DataFrame, hours: pd.DataFrame) -> str:
    """The steps as Markdown, and the hours in words."""
    steps = rows[rows["part"] == "steps"]
    limit = rows.loc[rows["part"] == "matrix", "tflop_per_s"].iloc[0]
    stock = steps.loc[steps["variant"] == "stock", "images_per_s"].iloc[0]
    head = "| training step of U10 FM | images/s | TFLOP/s | of a matrix product's | times the stock loop |"
    lines = [head, f"|{'---|' * 5}"]
    lines += [f"| {r.variant} | {r.images_per_s:,.0f} | {r.tflop_per_s:.0f} | {r.tflop_per_s / limit:.0%} | "
              f"{r.images_per_s / stock:.1f} |" for r in steps.itertuples()]
    first, several = (rows[rows["part"] == "together"].iloc[k] for k in (0, -1))
    gain = several["images_per_s"] / first["images_per_s"]
    total, count = hours["hours"].sum(), hours["trainings"].sum()
    by_family = ", ".join(f"{name} {row.hours:.1f}" for name, row in hours[::-1].iterrows())
    words = (f"{steps['device'].iloc[0]}, profile `{steps['profile'].iloc[0]}`, {steps['batch'].iloc[0]:.0f} images a step; a "
             f"matrix product in bfloat16 reaches {limit:.0f} TFLOP/s. {several['variant'].capitalize()}, a process each, such "
             f"trainings make {gain:.1f} times the steps of one. All {count} trainings of the profile, one after the other: "
             f"{total:.1f} hours, extrapolated from measured steps ({by_family}); {several['variant']}, if all gain as the "
             f"flow does, {total / gain:.1f}. Sampling and measuring come on top.")
    return "\n".join([*lines, "", *textwrap.wrap(words, 128, break_on_hyphens=False)])


# --- the whole
class Aside:
    """``aside(job, …)`` is the job's row, made by another process; of a job that fails what went wrong, and the next one
    has a new process, for a GPU may not recover."""

    def __init__(self) -> None:
        self.process: ProcessPoolExecutor | None = None

    def __call__(self, job: Callable[..., Row], *given: object) -> Row:
        self.process = self.process or ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        try:
            return self.process.submit(job, *given).result()
        except Exception as problem:
            traceback.print_exception(problem, limit=3)
            self.end()
            return {"problem": f"{type(problem).__name__}: {problem}"[:200]}

    def end(self) -> None:
        if self.process:
            self.process.shutdown()
        self.process = None


def at_once(job: Callable[..., Row], count: int) -> Row:
    """The sum of what so many processes do beside each other."""
    with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as some:
        each = pd.DataFrame(row.result() for row in [some.submit(job) for _ in range(count)])
    return {name: each[name].sum() for name in ("steps_per_s", "images_per_s", "tflop_per_s")} | {"batch": each["batch"][0]}


def measured(options: argparse.Namespace) -> Iterable[Row]:
    profile, seconds, alone = options.profile, options.seconds, Aside()
    if "matrix" in options.parts:
        yield {"part": "matrix", "variant": "bfloat16"} | alone(matrix_rate)
    if "steps" in options.parts:
        for variant in ("stock", *FASTER):
            yield {"part": "steps", "variant": variant} | alone(flow_step, profile, variant, seconds)
    if "systems" in options.parts:
        for name, one in SYSTEMS.items():
            for first in (False, True)[:1 + (one.first_stage is not None)]:
                found = alone(of_system, profile, name, first, seconds)
                yield {"part": "systems", "variant": name + ", first stage" * first} | found
    alone.end()
    if "together" in options.parts:
        for count in options.at_once:
            fast = partial(flow_step, profile, "+ channels last", 2 * seconds)
            yield {"part": "together", "variant": f"{count} at once"} | at_once(fast, count)
    if "settings" in options.parts:
        with ProcessPoolExecutor(len(TRIED), mp_context=get_context("spawn")) as some:
            yield from (row.result() for row in [some.submit(tried, profile, *one) for one in TRIED])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default="gpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--page", action="store_true", help="measure nothing, write what was measured into CONTRIBUTING.md")
    options = parser.parse_args()
    if options.page:
        rows = pd.read_csv(FILE)
        made = table(rows, whole_profile(rows["profile"].iloc[0], rows))
        PAGE.write_text(published(PAGE.read_text(encoding="utf-8"), made, BEGIN), encoding="utf-8")
        print(made)
        return
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ["TQDM_DISABLE"] = "1"
    kept = pd.read_csv(FILE) if FILE.exists() else pd.DataFrame({"part": []})
    kept, rows = kept[~kept["part"].isin(options.parts)], []

    def write(row: Row) -> None:
        rows.append(row)
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        new = pd.DataFrame(rows).assign(profile=options.profile, device=device_name(device()), torch=torch.__version__)
        pd.concat([kept, new]).to_csv(FILE, index=False, float_format="%.6g")

    for row in measured(options):
        write(row)


if __name__ == "__main__":
    main()
