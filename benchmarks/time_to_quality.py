"""Time to quality: the study's training engine against the stock loop, on the same images, network input and error.

``python benchmarks/time_to_quality.py [--dataset acdc] [--seconds 160] [--seconds-ours 50] [--rounds 3]`` trains both
sides in turn (A, B, A, B, …), each in a process of its own, prints the table and writes time_to_quality.csv beside
this script. It needs the slices and instruments that notebook 01 leaves in work/.

A is the stock loop: MONAI's `DiffusionModelUNet`, AdamW at a constant rate, no average of weights, float32. B is
`training.train` with what params.yaml says of the flow, but for the times, which are uniform as A's are: they decide
which errors a training cares for, and a race needs one goal (`--times logit-normal` is the study's own). Both learn a
mask-conditioned velocity (Lipman et al. 2023, eq. 23) and are judged by one function: its mean square error at uniform
times on patients that neither has seen. Then samples: A after many Euler steps against few evaluations. On a GPU, B is
also timed in bfloat16, channels_last, compiled.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from monai.networks.nets import DiffusionModelUNet
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import Study, open_study
from cmri_lib.experiments import instruments
from cmri_lib.generators.base import draw, training_batch
from cmri_lib.generators.flow import FlowMatching
from cmri_lib.measures.anatomy.adherence import adherence
from cmri_lib.measures.cost import peak_memory
from cmri_lib.measures.fidelity.distances import distances
from cmri_lib.measures.statistics.comparison import compare
from cmri_lib.networks.conditioning.base import Batch
from cmri_lib.networks.conditioning.label_map import LabelMap
from cmri_lib.systems.register import system
from cmri_lib.training import train

ROOT = Path(__file__).resolve().parents[1]
SYSTEM = "U10 FM + mask"
VARIANTS = {"fp32": {"precision": "no"}, "bf16": {"precision": "bf16"},
            "bf16 channels_last": {"precision": "bf16", "channels_last": True},
            "bf16 channels_last compile": {"precision": "bf16", "channels_last": True, "compile": True}}
CALIBRATION_STEPS = 40
STOCK_BATCH = 32


@dataclass(frozen=True)
class Job:
    """One training: `side` "A" or "B", for `seconds`, the weights to be left in `file`."""

    side: str
    variant: str
    seconds: float
    round: int
    file: Path
    options: argparse.Namespace


class StockNetwork(nn.Module):
    """MONAI's network as its tutorials set it up, the one-hot mask concatenated to its input."""

    def __init__(self, channels: tuple[int, ...]):
        super().__init__()
        self.unet = DiffusionModelUNet(
            spatial_dims=2, in_channels=5, out_channels=1, channels=channels, num_res_blocks=1, norm_num_groups=8,
            attention_levels=(False,) * (len(channels) - 1) + (True,), num_head_channels=channels[-1] // 2)

    def forward(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        mask = F.one_hot(batch["mask"].long(), 4).movedim(-1, 1).to(x.dtype)
        return self.unet(torch.cat([x, mask], 1), 1000.0 * t)


# --- what both sides learn from and are judged by
def cohort(options: argparse.Namespace) -> tuple[Study, Slices]:
    study = open_study(options.profile, options.dataset, ROOT)
    return study, instruments.load_slices(study)


def device_of(options: argparse.Namespace) -> torch.device:
    cpu = options.device == "cpu" or not torch.cuda.is_available()
    return torch.device("cpu" if cpu else "cuda")


@torch.no_grad()
def velocity_error(flow: FlowMatching, unseen: Batch, draws: int = 4, size: int = 16) -> float:
    """E ‖v(x_t, t) − (x_1 − x_0)‖² per pixel over all images of `unseen`, t uniform: stratified over the images, so
    that it has little variance, with the same noise and times whatever is judged."""
    generator, n, total = torch.Generator().manual_seed(99), len(unseen["image"]), 0.0
    device = flow.device
    for _ in range(draws):
        noise = torch.randn(unseen["image"].shape, generator=generator)
        times = (torch.rand((), generator=generator) + torch.randperm(n, generator=generator) / n) % 1
        for start in range(0, n, size):
            part = {k: v[start:start + size].to(device) for k, v in unseen.items()}
            x0, t = noise[start:start + size].to(device), times[start:start + size].to(device)
            s, x1 = t.view(-1, 1, 1, 1), part["image"]
            found = flow.network((1 - s) * x0 + s * x1, t, part)
            total += F.mse_loss(found, x1 - x0, reduction="sum").item()
    return total / draws / unseen["image"].numel()


# --- side A
def stock_flow(options: argparse.Namespace) -> FlowMatching:
    return FlowMatching(StockNetwork(tuple(options.channels)), LabelMap())


def stock_steps(flow: FlowMatching, data: Batch, rate: float, batch: int) -> Iterator[Tensor]:
    """The stock loop, without end: the loss of each step."""
    optimiser = torch.optim.AdamW(flow.parameters(), lr=rate)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(*data.values()), batch_size=batch, shuffle=True, drop_last=True)
    while True:
        for parts in loader:
            given = {name: part.to(flow.device) for name, part in zip(data, parts)}
            x1 = given["image"]
            x0, t = torch.randn_like(x1), torch.rand(len(x1), device=x1.device)
            s = t.view(-1, 1, 1, 1)
            loss = F.mse_loss(flow.network((1 - s) * x0 + s * x1, t, given), x1 - x0)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            yield loss


def train_stock(data: Batch, job: Job) -> tuple[FlowMatching, int, float]:
    """The stock loop until its time is over: flow, steps, seconds."""
    torch.manual_seed(job.round)
    flow = stock_flow(job.options).to(device_of(job.options))
    started = time.perf_counter()
    for steps, loss in enumerate(stock_steps(flow, data, job.options.rate, STOCK_BATCH), 1):
        if time.perf_counter() - started >= job.seconds:
            loss.item()  # waits for the GPU
            return flow.eval(), steps, time.perf_counter() - started


# --- side B
def untrained_flow(study: Study) -> FlowMatching:
    """The study's flow; it has a mask and no category as condition, so it needs no cohort's vocabulary."""
    return system(SYSTEM).build(study.params, Vocabulary({}), study.seed)


def train_study(study: Study, data: Batch, job: Job) -> tuple[FlowMatching, int, float]:
    """The study's loop for as many steps as fit into the time: flow, steps, seconds of the whole call. A short
    training, not counted, tells how many fit; the learning rate falls to its end within them."""
    settings = replace(study.params.flow.training, seed=study.seed + job.round, snapshots=0)
    settings = replace(settings, validate_every=0, **VARIANTS[job.variant])

    def untrained() -> FlowMatching:
        flow = untrained_flow(study)
        flow.times = job.options.times
        return flow

    with tempfile.TemporaryDirectory() as folder:
        trial = replace(settings, steps=CALIBRATION_STEPS, log_every=CALIBRATION_STEPS // 2)
        started = time.perf_counter()
        log = train(untrained(), data, trial, Path(folder) / "trial")
        took = time.perf_counter() - started
        half, whole = log["seconds"]
        step = (whole - half) / (CALIBRATION_STEPS / 2)
        beside = min(took - CALIBRATION_STEPS * step, job.seconds / 2)  # set-up, compilation and writing
        settings = replace(settings, steps=max(2, math.floor((job.seconds - beside) / step)))
        flow = untrained()
        started = time.perf_counter()
        train(flow, data, settings, Path(folder) / "run")
        return flow, settings.steps, time.perf_counter() - started


def run(job: Job) -> dict[str, object]:
    """Train one side and judge it; in a process of its own, so that its peak of memory is its own."""
    if job.options.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # read by Accelerate when it first looks for a device
    study, slices = cohort(job.options)
    data, unseen = (training_batch(slices.where(split=s), LabelMap()) for s in ("train", "validation"))
    device = Accelerator().device
    before = peak_memory(device)
    if job.side == "A":
        train_stock(data, replace(job, seconds=0))  # the first step is slow; B's first ones are in its trial
        flow, steps, seconds = train_stock(data, job)
        batch = STOCK_BATCH
    else:
        flow, steps, seconds = train_study(study, data, job)
        batch = study.params.flow.training.batch
    memory = peak_memory(device)
    save_file({k: v.contiguous().cpu() for k, v in flow.state_dict().items()}, job.file)
    return {"part": "training", "side": job.side, "variant": job.variant, "budget_s": job.seconds, "round": job.round,
            "seconds": seconds, "steps": steps, "batch": batch, "steps_per_s": steps / seconds,
            "images_per_s": steps * batch / seconds, "peak_memory_gib": memory, "before_training_gib": before,
            "velocity_error": velocity_error(flow, unseen)}


# --- samples
def judge_samples(options: argparse.Namespace, weights: dict[str, Path]) -> list[dict[str, object]]:
    """KID and Dice adherence of samples from the same noise under the same masks of test patients."""
    study, slices = cohort(options)
    params = study.params
    space, segmenter = instruments.feature_spaces(study, slices)[0], instruments.segmenter(study, slices)
    test, others = slices.where(split="test"), slices.where(split=["validation", "holdout"])
    conditions = test.take(np.linspace(0, len(test) - 1, options.images).astype(int))  # of all patients
    settings = {"seed": study.seed, "resamples": params.fidelity.resamples}
    plans = [("A", "euler", options.evaluations), ("A", "euler", 16), ("B", "midpoint", 8), ("B", "midpoint", 12)]
    rows = []
    for side, solver, steps in plans:
        flow = stock_flow(options) if side == "A" else untrained_flow(study)
        flow.load_state_dict(load_file(weights[side]))
        flow.to(device_of(options)).eval()
        started = time.perf_counter()
        made = draw(flow, conditions, side, seed=study.seed, solver=solver, steps=steps)
        seconds = time.perf_counter() - started
        scores = compare(others, made, distances(space), reference_real=test, repeats=params.fidelity.repeats, **settings)
        scores += adherence(test, made, segmenter, **settings)
        rows += [{"part": "samples", "side": side, "variant": solver, "evaluations": steps * (1 + (solver == "midpoint")),
                  "images": len(conditions), "seconds_per_image": seconds / len(conditions), "metric": s["metric"],
                  **{k: s[k] for k in ("value", "low", "high", "floor", "ceiling")}}
                 for s in scores if s["metric"] in ("kid_study", "dice_mean")]
    return rows


# --- the whole
def train_in_turn(options: argparse.Namespace, folder: Path) -> list[dict[str, object]]:
    """All trainings, round after round: A at B's budgets and at its own, then each variant of B."""
    gpu = device_of(options).type == "cuda"
    for name in VARIANTS:
        if name != "fp32" and not gpu:
            print(f"{name}: unavailable on a CPU")
    rounds = []
    for number in range(options.rounds):
        plan = [("A", "fp32", seconds) for seconds in sorted({*options.seconds_ours, options.seconds})]
        plan += [("B", name, seconds) for name in VARIANTS if gpu or name == "fp32" for seconds in options.seconds_ours]
        for side, variant, seconds in plan:
            job = Job(side, variant, seconds, number, folder / f"{side}-{variant}-{seconds}.safetensors", options)
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as one:
                rounds.append(one.submit(run, job).result())
            found = rounds[-1]
            print(f"round {number + 1} {side} {variant:>10} {found['seconds']:6.1f} s {found['steps']:5d} steps "
                  f"error {found['velocity_error']:.4f}", flush=True)
    return rounds


def report(rows: pd.DataFrame, options: argparse.Namespace) -> None:
    """Medians over rounds, and when B was as good as A."""
    training = rows[rows["part"] == "training"]
    columns = ["seconds", "steps", "steps_per_s", "images_per_s", "peak_memory_gib", "before_training_gib", "velocity_error"]
    medians = training.groupby(["side", "variant", "budget_s"])[columns].median()
    print("\nmedians over rounds\n", medians.round(4).to_string(), sep="")
    goal = medians.loc[("A", "fp32", options.seconds)]
    for variant, line in medians.loc["B"].groupby("variant"):
        good = line[line["velocity_error"] <= goal["velocity_error"]]
        verdict = (f"{good['seconds'].iloc[0]:.0f} s, {goal['seconds'] / good['seconds'].iloc[0]:.1f} times sooner"
                   if len(good) else "not reached")
        print(f"B {variant} as good as A at {goal['seconds']:.0f} s ({goal['velocity_error']:.4f}): {verdict}")
    samples = rows[rows["part"] == "samples"]
    shown = ["side", "variant", "evaluations", "seconds_per_image", "metric", "value", "low", "high", "floor", "ceiling"]
    print("\nsamples\n", samples[shown].round(4).to_string(index=False), sep="")


def machine(options: argparse.Namespace) -> dict[str, object]:
    device = device_of(options)
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    return {"dataset": options.dataset, "profile": options.profile, "device": f"{device.type} {name}",
            "cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__,
            "rate_of_A": options.rate, "times_of_B": options.times}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", default="acdc")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--seconds", type=float, default=160, help="of training, side A")
    parser.add_argument("--seconds-ours", type=float, nargs="+", default=[50], help="of training, side B; several")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=1e-3, help="constant learning rate of side A")
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 64], help="of side A")
    parser.add_argument("--times", choices=["uniform", "logit-normal"], default="uniform", help="of training, side B")
    parser.add_argument("--images", type=int, default=48, help="drawn from each side")
    parser.add_argument("--evaluations", type=int, default=1000, help="Euler steps of side A")
    parser.add_argument("--device", choices=["auto", "cpu"], default="auto")
    options = parser.parse_args()
    options.seconds_ours = sorted(options.seconds_ours)
    if options.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = train_in_turn(options, folder)
        last = {"A": folder / f"A-fp32-{options.seconds}.safetensors",
                "B": folder / f"B-fp32-{options.seconds_ours[-1]}.safetensors"}
        rows += judge_samples(options, last)
    table = pd.DataFrame(rows).assign(**machine(options))
    table.to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.6g")
    report(table, options)


if __name__ == "__main__":
    main()
