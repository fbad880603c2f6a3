"""The ruler of told systems: one set of conditions, one set of measures, for every cell of the ablation alike.

What is judged: distance to real patients whom nobody learnt from (KID, Fréchet), whether the frozen segmenter sees a
heart at all, and, where a mask was told, whether that heart is the one asked for (Dice, HD95).
"""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cmri_lib.cohort.slices import Slices
from cmri_lib.config.parameters import Parameters
from cmri_lib.config.study import Study
from cmri_lib.experiments import protocol
from cmri_lib.generators.base import Generator, draw
from cmri_lib.measures import panel
from cmri_lib.measures.anatomy.adherence import adherence, adherence_bounds, adherence_gain
from cmri_lib.measures.anatomy.validity import Ranges, validity_of_samples
from cmri_lib.measures.fidelity.distances import distances
from cmri_lib.measures.statistics.bootstrap import Score
from cmri_lib.measures.statistics.comparison import Measure, ceilings, compare, differences, floors
from cmri_lib.reporting.results import named
from cmri_lib.systems.conditional import FAMILIES, UNTOLD, WAYS, cell, richest
from cmri_lib.systems.unconditional import System


def cells(study: Study) -> Iterator[tuple[str, str, str, System]]:
    """(family, content, way, system) of the whole factorial design, the untold cell of every family first. Every tissue
    of the slice is a content where the cohort has them."""
    contents = ("cavity", "labels", *(["tissues"] if richest(study) == "tissues" else []))
    for family in FAMILIES:
        for content, way in (UNTOLD, *((c, w) for c in contents for w in WAYS)):
            yield family, content, way, cell(family, content, way)


class Ruler:
    """``ruler.rows(system, ruler.bank(system, generator))``.

    Args:
        slices: the preprocessed cohort; conditions are those of test patients, distances are to other patients.
        samples: drawn from every system.
        whole: measure the whole panel of notebook 06, not distances in the study's own features alone.
    """

    def __init__(self, study: Study, params: Parameters, slices: Slices, samples: int, *, whole: bool = False):
        self.study, self.test = study, slices.where(split="test")
        self.others = slices.where(split=["validation", "holdout"])
        self.conditions = protocol.sampling_conditions(slices, samples, study.seed)
        self.spaces, self.segmenter = protocol.feature_spaces(study, slices), protocol.segmenter(study, slices)
        self.options = {"seed": study.seed, "resamples": params.fidelity.resamples}
        training, chance = slices.where(split="train"), {"seed": study.seed, "repeats": params.fidelity.repeats}
        chosen = panel.measures(self.spaces, training=training, segment=self.segmenter) if whole else [distances(self.spaces[0])]
        chosen.append(validity_of_samples(Ranges.of(training), self.segmenter))
        size = len(self.conditions)
        self.bounds = {m: {"floor": floors(self.others, size, m, reference_real=self.test, **chance),
                           "ceiling": ceilings(self.others, training, size, m, **chance)} for m in chosen}
        self.followed = adherence_bounds(self.test, self.segmenter, study.seed)

    def bank(self, system: System, generator: Generator, **choices: object) -> Slices:
        """Samples under the ruler's conditions; `choices` are for the sampler."""
        return draw(generator, self.conditions, system.id, seed=self.study.seed, **choices)

    def rows(self, system: System, bank: Slices) -> list[dict[str, object]]:
        """Tidy rows of every measure that applies."""
        scores = [row for measure, bound in self.bounds.items()
                  for row in compare(self.others, bank, measure, **bound, **self.options)]
        if bank.masks.any():
            scores += adherence(self.test, bank, self.segmenter, bounds=self.followed, **self.options)
        return named(system, scores)

    def gain(self, first: Slices, second: Slices, metric: str) -> Score:
        """`metric` of the first bank minus that of the second, paired over patients: "kid_study", "frechet_study",
        "heart_valid", or a column of `measures.anatomy.agreement` such as "dice_mean"."""
        measures: dict[str, Measure] = {m.name: measure for measure in self.bounds for m in measure.metrics}
        if metric in measures:
            return differences(self.others, first, second, measures[metric], **self.options)[metric]
        return adherence_gain(first, second, self.segmenter, metric, **self.options)


def among(slices: Slices, pairs: tuple[tuple[str, str], ...]) -> np.ndarray:
    """(N,) bool: slices of a (disease, vendor) of `pairs`."""
    both = pd.MultiIndex.from_frame(slices.table[["disease", "vendor"]])
    return both.isin(list(pairs)) if pairs else np.zeros(len(slices), bool)


def draw_design(table: pd.DataFrame) -> Figure:
    """The factorial design: metrics down, families across, content of the mask along each axis, colours for ways in. Dashed:
    what real images score, the ceiling of adherence and the floor of everything else."""
    metrics, families = list(dict.fromkeys(table["metric"])), list(dict.fromkeys(table["family"]))
    contents, ways = list(dict.fromkeys(table["content"])), [w for w in dict.fromkeys(table["way"]) if w != "none"]
    figure, axes = plt.subplots(len(metrics), len(families), figsize=(3.2 * len(families) + 1.2, 2.3 * len(metrics) + 0.3),
                                sharex=True, sharey="row", squeeze=False)
    for (metric, family), part in table.groupby(["metric", "family"], sort=False):
        axis = axes[metrics.index(metric), families.index(family)]
        for way, line in part.groupby("way", sort=False):
            side = 0.0 if way == "none" else 0.18 * (ways.index(way) - 1)
            error = [line["value"] - line["low"], line["high"] - line["value"]]
            axis.errorbar([contents.index(c) + side for c in line["content"]], line["value"], error, fmt="o", ms=4, capsize=2,
                          color="black" if way == "none" else f"C{ways.index(way)}", label=way)
        axis.axhline(part["ceiling" if metric.startswith("dice") else "floor"].mean(), ls="--", color="gray", lw=1)
        axis.set_xticks(range(len(contents)), contents)
    for axis, family in zip(axes[0], families):
        axis.set_title(family)
    for line, metric in zip(axes, metrics):
        line[0].set_ylabel(metric)
        if metric.startswith("kid"):
            line[0].set_yscale("symlog", linthresh=0.1)  # an unbiased estimate of 0 falls below it now and then
    handles = dict(zip(*axes[-1, -1].get_legend_handles_labels()[::-1]))
    axes[0, -1].legend(handles.values(), handles, fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return figure
