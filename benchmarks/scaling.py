"""What does a training cost when images, networks and cohorts grow?

    python benchmarks/scaling.py

counts the floating-point operations of one step of the study's flow (U10 FM) at 32², 64² and 128² pixels, multiplies
them by the steps of its training, and extrapolates to a cohort of 40,000 patients. Nothing is timed, so any machine
gives the same numbers. ``scaling.csv`` has them, and the table in ``CONTRIBUTING.md`` is made of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cmri_lib.cohort.splits import SHIPPED, read_split
from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.study import open_study
from cmri_lib.systems.register import system

SYSTEM = "U10 FM"
#: Profile → pixels per side: the sizes that the study trains at.
PROFILES = ("smoke", "overnight", "gpu")
FILE, PAGE = Path(__file__).with_suffix(".csv"), Path(__file__).parents[1] / "CONTRIBUTING.md"
BEGIN, END = "<!-- python benchmarks/scaling.py -->", "<!-- end -->"


def step_flops(model: torch.nn.Module, size: int) -> int:
    """Floating-point operations of one image in one step, forwards and backwards;
    a multiplication and an addition count two."""
    # Attention as products of matrices, which the counter knows on every device.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.loss({"image": torch.zeros(1, 1, size, size)}, "model").backward()
    return counter.get_total_flops()


def row(profile: str, cohort: int, teraflops: float) -> dict[str, object]:
    """Cost of the profile's training on the phantom, and on a cohort of so many patients whose images are seen as often."""
    patients = list(read_split(SHIPPED / "phantom.csv")["split"]).count("train")
    params = open_study(profile, "phantom").params
    settings, size = params.flow.training, params.preprocess.size
    model = system(SYSTEM).build(params, Vocabulary({}), 0).train()
    each, images = step_flops(model, size), settings.steps * settings.batch
    total, grown = each * images, each * images * cohort / patients
    return {"size": size, "profile": profile, "parameters": sum(p.numel() for p in model.parameters()),
            "gflop_per_image": each / 1e9, "batch": settings.batch, "steps": settings.steps,
            "tflop": total / 1e12, "gpu_hours": total / teraflops / 3.6e15,
            "cohort": cohort, "cohort_steps": round(settings.steps * cohort / patients), "cohort_tflop": grown / 1e12,
            "cohort_gpu_hours": grown / teraflops / 3.6e15, "assumed_tflop_per_s": teraflops}


def table(rows: pd.DataFrame) -> str:
    """The rows as Markdown."""
    first = rows.iloc[0]
    head = ["pixels, profile", "parameters", "GFLOP per image", "images × steps", "TFLOP", "GPU hours",
            f"steps, {first['cohort']:,.0f} patients", "TFLOP", "GPU hours"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {r.size}², {r.profile} | {r.parameters / 1e6:.2f} M | {_short(r.gflop_per_image)} | "
              f"{r.batch} × {r.steps:,} | {_short(r.tflop)} | {_short(r.gpu_hours)} | {r.cohort_steps:,} | "
              f"{_short(r.cohort_tflop)} | {_short(r.cohort_gpu_hours)} |" for r in rows.itertuples(index=False)]
    return "\n".join([*lines, "", f"A GPU is taken to sustain {first['assumed_tflop_per_s']:g} TFLOP/s (`--teraflops`), as one "
                      "training of U10 FM at 128² does in the table above; smaller networks reach less."])


def _short(value: float) -> str:
    return "< 0.01" if value < 0.01 else f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def published(text: str, made: str, begin: str = BEGIN) -> str:
    """The page with `made` between its marks."""
    before, rest = text.split(begin)
    return f"{before}{begin}\n{made}\n{END}{rest.split(END, 1)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cohort", type=int, default=40_000, help="training patients to extrapolate to")
    parser.add_argument("--teraflops", type=float, default=60.0, help="that a GPU sustains per second, in bf16")
    options = parser.parse_args()
    rows = pd.DataFrame([row(profile, options.cohort, options.teraflops) for profile in PROFILES])
    rows.to_csv(FILE, index=False, float_format="%.6g")
    made = table(pd.read_csv(FILE))
    PAGE.write_text(published(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")
    print(made)


if __name__ == "__main__":
    main()
