"""Whole stacks, judged: slice by slice by the study's evaluator, along the axis by what real stacks of other patients show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.stacks import as_volumes, resampled
from cmri_lib.config.study import Study
from cmri_lib.errors import DataError
from cmri_lib.experiments.evaluator import Evaluator
from cmri_lib.experiments.training import cost_rows
from cmri_lib.generators.base import Generator
from cmri_lib.generators.latent import Latent
from cmri_lib.measures.anatomy.coherence import ALIKE, RULES, coherence, coherence_of_masks
from cmri_lib.measures.fidelity.support import support
from cmri_lib.measures.statistics.bootstrap import Score, bootstrap, mean_score, weighted_mean
from cmri_lib.measures.statistics.comparison import Measure, compare
from cmri_lib.networks.stack_autoencoder import with_labels
from cmri_lib.reporting.results import Named, with_system_columns
from cmri_lib.systems.system import Run

#: Metrics of stacks, in order: as the frozen segmenter reads the images, and of the masks that stacks come with.
READ_METRICS = tuple(f"stack_{name}" for name in (*ALIKE, *RULES))
MASK_METRICS = tuple(f"mask_stack_{name}" for name in (*ALIKE[2:], *RULES))


class StackEvaluator(Evaluator):
    """The study's evaluator with all its real slices resampled to stacks of as many planes as C7 draws, so that both sides of
    every comparison have gone through the same interpolation. The instruments stay those of the study.

    Attributes:
        whole: the test slices as they are, in whole stacks, to draw slice by slice from; `conditions` are these, resampled.
        planes: of every stack.
    """

    def __init__(self, study: Study, slices: Slices, samples: int):
        super().__init__(study, slices, samples, "brief")
        self.planes = study.params.volumes.autoencoder.network.planes
        self.whole = self.conditions
        for name in ("test", "training", "holdout", "others", "reference", "conditions"):
            setattr(self, name, resampled(getattr(self, name), self.planes))

    @cached_property
    def measures(self) -> list[Measure]:
        """The brief ones, and precision and recall in the study's features, which the review reports of C7."""
        return [*super().measures, support(self.spaces[0])]

    def distances(self, slices: Slices) -> list[dict[str, object]]:
        """Rows of the two headline distances alone, of anatomy and of appearance, to the resampled slices of other patients."""
        return [row for measure in self.measures[:2]
                for row in compare(self.others, slices, measure, **self.bounds[measure], **self.options)]

    def stack_values(self, stacks: Slices) -> pd.DataFrame:
        """One row per stack: patient, `READ_METRICS` and, where it has a mask, `MASK_METRICS`."""
        read = coherence(stacks, self.segmenter(stacks.images), self.planes)
        found = read[["patient"]].assign(**{f"stack_{name}": read[name] for name in (*ALIKE, *RULES)})
        if stacks.masks.any():
            own = coherence_of_masks(stacks, self.planes)
            found = found.assign(**{f"mask_stack_{name}": own[name] for name in (*ALIKE[2:], *RULES)})
        return found

    def stack_score(self, values: pd.DataFrame, metric: str) -> Score:
        """Mean over stacks; n is the number of stacks, the interval is over patients.

        Raises:
            DataError: if the metric is not known of these stacks.
        """
        if metric not in values:
            raise DataError("not measured of these stacks", field=metric, remedy=f"choose among {list(values)[1:]}")
        return mean_score(values[metric].to_numpy(), values["patient"].to_numpy(), n=len(values), **self.options)

    def stack_rows(self, of: Named | str, values: pd.DataFrame, real: pd.DataFrame) -> list[dict[str, object]]:
        """Tidy rows; floor is what stacks of other `real` patients show. Shares of kept rules are the better the higher; of all
        else the column `better` says where the value of real stacks lies."""
        rows = []
        for metric in (m for m in (*READ_METRICS, *MASK_METRICS) if m in values):
            share = metric.endswith(RULES)
            score = self.stack_score(values, metric).against(self.stack_score(real, metric).value, 1.0 if share else np.nan)
            rows.append(score.row(metric, "anatomy", "higher" if share or score.value < score.floor else "lower"))
        return with_system_columns(of, rows)

    def stack_difference(self, first: pd.DataFrame, second: pd.DataFrame, metric: str) -> Score:
        """`metric` of the first stacks minus that of the second, each drawn by patients;
        a patient of both is drawn for both."""
        a, b = (values[metric].to_numpy() for values in (first, second))
        return bootstrap(lambda u, v: weighted_mean(a, u) - weighted_mean(b, v), first["patient"].to_numpy(),
                         second["patient"].to_numpy(), **self.options)


@torch.no_grad()
def through_code(generator: Latent, stacks: Slices, batch: int = 4) -> Slices:
    """Resampled stacks, encoded and decoded by the first stage: the best, image and mask, that its codes can hold."""
    first = generator.autoencoder
    images, masks = (torch.from_numpy(a) for a in as_volumes(stacks, first.planes))
    given = with_labels(images[:, None], masks, first.labels).split(batch)
    made = torch.cat([first.decode(first.encode(part.to(generator.device))).float().cpu() for part in given])
    return replace(stacks, images=made[:, 0].clamp(-1, 1).reshape(stacks.images.shape).numpy(),
                   masks=made[:, 1:].argmax(dim=1).to(torch.uint8).reshape(stacks.masks.shape).numpy())


def middle_repeated(stacks: Slices, planes: int) -> Slices:
    """The middle plane of every stack in the place of all its planes: slices of real hearts, and no shape along the axis. The
    control of what is too coherent."""
    middle = np.repeat(np.arange(len(stacks) // planes) * planes + planes // 2, planes)
    return replace(stacks.take(middle), table=stacks.table)


def area_profiles(sets: Mapping[str, Slices], labels: Mapping[str, np.ndarray], structures: Mapping[str, int]) -> pd.DataFrame:
    """Areas along the axis, for a figure: a row per set, stack, plane and structure, with `height` and `cm2`."""
    parts = []
    for name, stacks in sets.items():
        table, pixel = stacks.table, stacks.table["spacing"].to_numpy(float) ** 2 / 100
        stack = (table["index"] == 0).cumsum().to_numpy() - 1
        parts += [pd.DataFrame({"set": name, "stack": stack, "height": table["height"], "structure": structure,
                                "cm2": (labels[name] == value).sum((1, 2)) * pixel}) for structure, value in structures.items()]
    return pd.concat(parts, ignore_index=True)


def stack_costs(study: Study, run: Run, generator: Generator, conditions: Slices, stacks: int, planes: int
                ) -> list[dict[str, object]]:
    """Cost rows of a generator of stacks, by the slice: seconds, and slices that its training, and its first stage, saw."""
    factor = {"seconds_per_image": 1 / planes, "images_seen": planes, "images_before": planes}
    rows = cost_rows(study, run, generator, conditions, images=stacks)
    return [{**row, **{key: row[key] * factor.get(row["metric"], 1) for key in ("value", "low", "high")}} for row in rows]
