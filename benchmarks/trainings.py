"""What did the published trainings take?

    python benchmarks/trainings.py [--dataset phantom] [--profile overnight]

reads the logs of all trainings that are published (`dvc pull trainings.dvc`) and writes ``trainings.csv``: a line for each,
with its device, the images it saw, its median pace, and its hours: at that pace, and as they were logged. The latter hold
breaks and whatever else the machine did. The last lines are sums. Paces of the CPU are of one core, mostly with another
training on the other one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from cmri_lib.experiments.published import WEIGHTS
from cmri_lib.training.checkpoint import read_note
from cmri_lib.training.kept import read_log

ROOT, FILE = Path(__file__).parents[1], Path(__file__).with_suffix(".csv")


def row(folder: Path, below: Path) -> dict[str, object]:
    """One training: stage, training, device, images, images_per_s (median), hours (at that pace), logged_hours."""
    log, device = read_log(folder), read_note(folder / WEIGHTS).get("device", "cpu")
    images, pace = int(log["images"].iloc[-1]), float(log["images_per_s"].median())
    stage, *names = folder.relative_to(below).parts
    return {"stage": stage, "training": "/".join(names), "device": device, "images": images, "images_per_s": pace,
            "hours": images / pace / 3600, "logged_hours": float(log["seconds"].iloc[-1]) / 3600}


def table(below: Path) -> pd.DataFrame:
    """All trainings in a folder, and for each kind of device their sum."""
    folders = sorted(file.parent for file in below.rglob(WEIGHTS) if (file.parent / "log.csv").exists())
    rows = pd.DataFrame([row(folder, below) for folder in folders])
    sums = rows.groupby("device", as_index=False)[["images", "hours", "logged_hours"]].sum()
    counts = [f"{count} trainings" for count in rows.groupby("device").size()]
    return pd.concat([rows, sums.assign(stage="all", training=counts)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What the published trainings took.")
    parser.add_argument("--dataset", default="phantom")
    parser.add_argument("--profile", default="overnight")
    asked = parser.parse_args()
    found = table(ROOT / "trainings" / asked.dataset / asked.profile)
    found.to_csv(FILE, index=False, float_format="%.4g")
    print(found[found["stage"] == "all"].to_string(index=False))
