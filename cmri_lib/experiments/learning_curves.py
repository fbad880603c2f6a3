"""Curves: the same judgement of a system at other amounts of training, of patients, or of network evaluations.

A judgement is KID to real patients in the study's features, and the audit's share of samples that lie nearer to
training than to hold-out patients. Every point draws `params.curves.images` samples under the same conditions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.parameters import Parameters
from cmri_lib.config.study import Study
from cmri_lib.experiments import protocol
from cmri_lib.generators.base import Generator
from cmri_lib.measures.fidelity.distances import fidelity
from cmri_lib.privacy.nearest_neighbours import audit_neighbours
from cmri_lib.reporting.results import named
from cmri_lib.systems.unconditional import System
from cmri_lib.training import TrainSettings
from cmri_lib.training.checkpoint import load_weights
from cmri_lib.training.loop import snapshot_file

#: Columns of a curve's table. `x` is images seen, patients or NFE, as `curve` says; `seconds` is training time.
COLUMNS = ("system", "family", "curve", "x", "sampler", "seconds", "metric", "value", "low", "high", "n", "floor")
KEPT = ("kid_study", "nearest_share_study")
LABELS = {"images": "training images seen", "patients": "training patients", "NFE": "network evaluations per image"}


class Judge:
    """The study's frozen ruler for curves: ``judge(generator, seen)`` → rows of `KEPT`.

    Args:
        slices: the preprocessed cohort; samples are drawn under test conditions and compared with other patients.
    """

    def __init__(self, study: Study, params: Parameters, slices: Slices):
        self.study, self.slices, self.repeats = study, slices, params.fidelity.repeats
        self.space = protocol.feature_spaces(study, slices)[0]
        self.conditions = protocol.sampling_conditions(slices, params.curves.images, study.seed)
        self.test, self.holdout = slices.where(split="test"), slices.where(split="holdout")
        self.others = slices.where(split=["validation", "holdout"])
        self.options = {"seed": study.seed, "resamples": params.fidelity.resamples}

    def __call__(self, generator: Generator, seen: Slices, **choices: object) -> list[dict[str, object]]:
        """Scores of samples of `generator`, which learnt from `seen`; `choices` are for its sampler."""
        made = protocol.draw(generator, self.conditions, "curve", seed=self.study.seed, **choices)
        rows = fidelity(self.others, made, self.space, reference_real=self.test, repeats=self.repeats, **self.options)
        rows += audit_neighbours(self.test, made, seen, self.holdout, self.space, **self.options).rows
        return [row for row in rows if row["metric"] in KEPT]


def over_compute(study: Study, params: Parameters, system: System, slices: Slices) -> list[dict[str, object]]:
    """Quality on the way: the snapshots kept during training, and its end. x: images seen."""
    generator, judge = protocol.trained(study, system, slices), Judge(study, params, slices)
    folder, seen = protocol.training_folder(study, system), slices.where(split="train")
    settings = study.settings(f"{system.section}.training", TrainSettings)
    log, before = pd.read_csv(folder / "log.csv"), protocol.first_stage_seconds(study, system)
    rows = []
    for step in (*settings.snapshot_steps(), settings.steps):
        file = folder / "weights.safetensors" if step == settings.steps else snapshot_file(folder, step)
        load_weights(generator, file)
        reached = log[log["step"] >= step].iloc[0]
        point = {"curve": "images", "x": step * settings.batch, "seconds": reached["seconds"] + before}
        rows += [{**point, **row} for row in named(system, judge(generator, seen))]
    return rows


def over_patients(study: Study, params: Parameters, system: System, slices: Slices) -> list[dict[str, object]]:
    """Quality against training patients, each number trained anew with the same number of steps. x: patients."""
    judge, every = Judge(study, params, slices), protocol.training_patients(study, slices)
    rows = []
    for patients in sorted({*params.curves.patients, len(every)}):
        generator = protocol.trained(study, system, slices, None if patients == len(every) else patients)
        seen = slices.where(split="train", patient=every[:patients])
        rows += [{"curve": "patients", "x": patients, **row} for row in named(system, judge(generator, seen))]
    return rows


def over_evaluations(study: Study, params: Parameters, system: System, generator: Generator, slices: Slices,
                     samplers: Mapping[str, Mapping[int, Mapping[str, object]]]) -> list[dict[str, object]]:
    """Quality against network evaluations. `samplers`: label → {NFE: choices for `Generator.sample`}. x: NFE."""
    judge, seen = Judge(study, params, slices), slices.where(split="train")
    return [{"curve": "NFE", "x": nfe, "sampler": label, **row}
            for label, points in samplers.items() for nfe, choices in points.items()
            for row in named(system, judge(generator, seen, **choices))]


def write(study: Study, name: str, rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """Write ``results/<dataset>/<name>_curves.csv``."""
    table = pd.DataFrame(list(rows), columns=list(COLUMNS))
    study.results.mkdir(parents=True, exist_ok=True)
    table.to_csv(study.results / f"{name}_curves.csv", index=False, float_format="%.6g")
    return table


def read(study: Study) -> pd.DataFrame:
    """The curves of all notebooks of this cohort."""
    files = sorted(study.results.glob("*_curves.csv"))
    return pd.concat([pd.read_csv(f) for f in files], ignore_index=True) if files else pd.DataFrame(columns=list(COLUMNS))


def draw(numbers: pd.DataFrame) -> Figure:
    """One panel per curve and metric; one line per system and sampler; dashed: what real patients score."""
    panels = [(c, m) for c in numbers["curve"].unique() for m in numbers["metric"].unique()]
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.2), squeeze=False)
    for axis, (curve, metric) in zip(axes[0], panels):
        part = numbers[(numbers["curve"] == curve) & (numbers["metric"] == metric)]
        lines = part.assign(line=part["system"] + part["sampler"].map(lambda s: f" {s}" if isinstance(s, str) else ""))
        several = lines["line"].nunique()
        colours = sns.color_palette("husl" if several > 8 else None, several)
        for place, (label, line) in enumerate(lines.groupby("line", sort=False)):
            spread = np.clip([line["value"] - line["low"], line["high"] - line["value"]], 0, None)
            shift = 1 + 0.03 * (place - several / 2)  # so that intervals do not hide each other
            axis.errorbar(line["x"] * shift, line["value"], yerr=spread, marker="o", ms=4, capsize=2, color=colours[place], label=label)
        axis.axhline(part["floor"].mean(), ls="--", color="gray")
        axis.set(xscale="log", xlabel=LABELS[curve], title=metric)
        ticks = sorted(set(part["x"]))
        axis.set_xticks(ticks, ticks)
        axis.minorticks_off()
        if metric.startswith("kid"):
            axis.set_yscale("symlog", linthresh=0.1)
            axis.set_ylim(bottom=-0.1)  # an unbiased estimate of 0 falls below it now and then
    axes[0, -1].legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return figure
