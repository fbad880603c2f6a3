"""How near C11's images come to the true ones: likeness, T1, and the motion of the cavity, against what takes no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cmri_lib.cohort.case import LABELS
from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError
from cmri_lib.experiments.contrast import TIME, WHITE, Series
from cmri_lib.generators.base import batch_of, chunks, part_on, parts_on
from cmri_lib.generators.cross_reconstruction import CrossVAE
from cmri_lib.measures.cavity import cavity_area
from cmri_lib.measures.conditioning.paired_truth import likeness
from cmri_lib.measures.conditioning.regions import heart_region, mean_inside
from cmri_lib.measures.relaxometry import fit_t1
from cmri_lib.measures.statistics.bootstrap import Score, mean_score, paired_difference
from cmri_lib.systems.contrast import LOG_TIME, MOTION

#: Metrics of likeness, and which of their values are better.
LIKENESS = {"ssim_target": "higher", "psnr_target": "higher", "mae_target": "lower"}
#: Images that go through the network at once.
BATCH = 64


@dataclass(frozen=True)
class Questions:
    """Which image is asked for, and from which images of the same patient the answer is made.

    Attributes:
        target: Q images, the true answers.
        sources: (M, Q) rows of `origin`: M images of the patient of each.
        origin: the series that the sources are images of.
    """

    target: Series
    sources: np.ndarray
    origin: Series

    def __post_init__(self) -> None:
        if self.sources.ndim != 2 or self.sources.shape[1] != len(self.target):
            raise DataError(f"sources {self.sources.shape} for {len(self.target)} images", field="sources",
                            remedy="give (M, Q) rows, M of every image that is asked for")
        if (self.origin.slices.patients[self.sources] != self.target.slices.patients).any():
            raise DataError("a source shows another patient than the target", field="sources",
                            remedy="name rows of the target's own patient")

    @property
    def elsewhere(self) -> np.ndarray:
        """(Q,) bool: no source is in the state that is asked for."""
        asked, given = (series.slices.table[[MOTION, TIME]].to_numpy() for series in (self.target, self.origin))
        return ~(given[self.sources] == asked).all(2).any(0)

    @property
    def unchanged(self) -> Slices:
        """The (first) source as the answer: what takes no network."""
        return replace(self.target.slices, images=self.origin.slices.images[self.sources[0]])


def ask(origin: Series, draws: int, seed: int, *, images: int = 1, target: Series | None = None) -> Questions:
    """For every patient of `origin`, `draws` times: `images` of different states, drawn at random, as sources of every image of
    the patient in `target` (by default `origin`). Questions of one draw and patient follow each other, in `target`'s order.

    Raises:
        DataError: if there are fewer states than sources, or other patients in `target`.
    """
    target, states, rng = target or origin, len(origin.states), np.random.default_rng(seed)
    names = list(dict.fromkeys(origin.slices.patients))
    if images > states or names != list(dict.fromkeys(target.slices.patients)):
        raise DataError(f"{images} sources of {states} states, of {len(names)} patients", field="images",
                        remedy="ask for fewer sources, of the patients of the series")
    chosen = np.stack([[rng.permutation(states)[:images] for _ in names] for _ in range(draws)])  # (draws, patients, M)
    rows = chosen + states * np.arange(len(names))[:, None]
    per_patient = len(target) // len(names)
    sources = np.repeat(rows.reshape(-1, images), per_patient, axis=0).T
    return Questions(target.take(np.tile(np.arange(len(target)), draws)), sources, origin)


@torch.no_grad()
def answers(generator: CrossVAE, questions: Questions) -> Slices:
    """What C11 makes of the sources."""
    condition = generator.conditioning
    given, wanted = batch_of(questions.origin.slices, condition), batch_of(questions.target.slices, condition)
    made = []
    for rows in chunks(len(questions.target), BATCH):
        sources = [{field: values[source].to(generator.device) for field, values in given.items()}
                   for source in torch.from_numpy(questions.sources[:, rows.start:rows.stop])]
        made.append(generator.transfer(sources, part_on(generator.device, wanted, rows)).float().cpu().numpy())
    return replace(questions.target.slices, images=np.concatenate(made))


def nearest_patient(questions: Questions, learnt: Series) -> Slices:
    """The training patient who looks most like the (first) source in its state, in the state asked for: no network either.

    Raises:
        DataError: if the training patients were not scanned in a state of a source or of a target.
    """
    states = {tuple(state): k for k, state in enumerate(learnt.states.to_numpy())}
    images = learnt.slices.images.reshape(-1, len(states), *learnt.slices.images.shape[1:])
    try:
        source, target = ([states[tuple(state)] for state in series.slices.table[[MOTION, TIME]].to_numpy()[rows]]
                          for series, rows in ((questions.origin, questions.sources[0]), (questions.target, slice(None))))
    except KeyError as state:
        raise DataError(f"no training image at contraction and inversion time {state}", field="states",
                        remedy="ask for states of the training") from state
    found: dict[int, int] = {}
    for row, state in zip(questions.sources[0], source):
        if row not in found:
            found[row] = int(((images[:, state] - questions.origin.slices.images[row]) ** 2).mean((1, 2, 3)).argmin())
    nearest = [found[row] for row in questions.sources[0]]
    return replace(questions.target.slices, images=images[nearest, target])


def likeness_values(made: Slices, questions: Questions) -> dict[str, np.ndarray]:
    """Metric of `LIKENESS` → (Q,): SSIM, PSNR in dB and mean absolute error (images in [−1, 1]) in the heart and 10 mm around
    it; NaN where a source was in the state asked for already."""
    true, region = questions.target.slices, heart_region(questions.target.slices)
    error = mean_inside(np.abs(made.images - true.images)[:, 0], region)
    values = dict(zip(LIKENESS, (*likeness(made.images, true.images, region), error)))
    return {name: np.where(questions.elsewhere & np.isfinite(value), value, np.nan) for name, value in values.items()}


def likeness_rows(made: Slices, questions: Questions, options: Mapping[str, int]) -> list[dict[str, object]]:
    """Tidy rows, intervals over patients. Floor: the source unchanged; ceiling of SSIM: 1, of the error: 0."""
    floor = likeness_values(questions.unchanged, questions)
    ends = {"ssim_target": 1.0, "psnr_target": np.nan, "mae_target": 0.0}
    return [mean_score(values, made.patients, n=int(np.isfinite(values).sum()), **options)
            .against(np.nanmean(floor[name]), ends[name]).row(name, "conditioning", LIKENESS[name])
            for name, values in likeness_values(made, questions).items()]


def likeness_difference(first: Slices, second: Slices, questions: Questions, metric: str, options: Mapping[str, int]) -> Score:
    """`metric` of `LIKENESS` of the first answers minus that of the second, paired over patients."""
    return paired_difference(*(likeness_values(made, questions)[metric] for made in (first, second)), first.patients, **options)


def code_contents(generator: CrossVAE, learnt: Series, unseen: Series) -> pd.Series:
    """What can be read off the code of one image by a linear map: R² on `unseen` patients of a ridge regression on the codes of
    `learnt` ones (penalty by cross-validation). 1: all of it, 0 or below: nothing.

    Returns:
        of the area of the LV cavity at the patient's least contraction, which is anatomy, and of the source's own
        contraction and logarithm of the inversion time, which a code for all states has no use for.
    """
    wanted = {"cavity, least contracted": _largest_cavity, "contraction of the source": lambda s: s.slices.table[MOTION],
              "log inversion time of the source": lambda s: s.slices.table[LOG_TIME]}
    first, second = (_codes(generator, series) for series in (learnt, unseen))
    return pd.Series({name: make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 5, 13))).fit(first, of(learnt))
                      .score(second, of(unseen)) for name, of in wanted.items()})


@torch.no_grad()
def _codes(generator: CrossVAE, series: Series) -> np.ndarray:
    """(N, latent)."""
    batch = batch_of(series.slices, generator.conditioning)
    return torch.cat([generator.infer([part]) for part in parts_on(generator.device, batch, BATCH)]).float().cpu().numpy()


def _largest_cavity(series: Series) -> np.ndarray:
    """(N,) pixels of the LV cavity of each image's patient, where it has most."""
    pixels = pd.Series((series.slices.masks == LABELS["LV"]).sum((1, 2)))
    return pixels.groupby(series.slices.patients).transform("max").to_numpy(float)


def magnitudes(images: np.ndarray) -> np.ndarray:
    """Images in [−1, 1] as magnitudes in units of the steady state of LV blood."""
    return (images + 1) * WHITE / 2


def t1_table(made: Slices, questions: Questions, flip: float) -> pd.DataFrame:
    """T1 in ms, fitted to the images of every series (a patient, a draw and a contraction), against the truth.

    Only pixels of one material are fitted. Columns: row (of the first image of the series), patient, contraction, region (of
    "Myo", "LV"), true and fitted (medians of the region), pixel_error (median over pixels of the absolute error).

    Raises:
        DataError: if the questions are not series over the inversion times.
    """
    times = questions.target.slices.table[TIME].drop_duplicates().to_numpy()
    blocks = questions.target.slices.table[TIME].to_numpy()
    if len(blocks) % len(times) or (blocks.reshape(-1, len(times)) != times).any():
        raise DataError(f"{len(blocks)} images at inversion times {times.tolist()}", field=TIME,
                        remedy="ask for every inversion time, one after the other")
    rows = []
    for start in range(0, len(blocks), len(times)):
        series, true = magnitudes(made.images[start:start + len(times), 0]), questions.target.t1[start]
        for region in ("Myo", "LV"):
            inside = (made.masks[start] == LABELS[region]) & np.isfinite(true)
            if not inside.any():
                continue
            found = pd.DataFrame({"fitted": fit_t1(series[:, inside], times, flip), "true": true[inside]})
            rows.append({"row": start, "patient": made.patients[start], MOTION: made.table[MOTION].iloc[start],
                         "region": region, **found.median(),
                         "pixel_error": (found["fitted"] - found["true"]).abs().median()})
    return pd.DataFrame(rows)


def t1_rows(table: pd.DataFrame, floor: pd.DataFrame, ceiling: pd.DataFrame, options: Mapping[str, int]
            ) -> list[dict[str, object]]:
    """Tidy rows of a `t1_table`: error of the median of a region, and of the median pixel. n: series.

    Args:
        floor, ceiling: tables of the nearest training patient, and of the true images.
    """
    rows = []
    for region, part in table.groupby("region", sort=False):
        for metric in ("t1_error", "t1_pixel_error"):
            errors, low, high = (_t1_errors(t[t["region"] == region], metric) for t in (part, floor, ceiling))
            rows.append(mean_score(errors, part["patient"].to_numpy(), n=len(part), **options)
                        .against(np.nanmean(low), np.nanmean(high)).row(f"{metric}_{region}_ms", "conditioning", "lower"))
    return rows


def _t1_errors(part: pd.DataFrame, metric: str) -> np.ndarray:
    error = (part["fitted"] - part["true"]).abs() if metric == "t1_error" else part["pixel_error"]
    return error.to_numpy(float)


def cavity_table(series: Mapping[str, Slices], times: Sequence[float]) -> pd.DataFrame:
    """Area of the LV cavity in cm² of cine images of one order: columns patient, time (of the heartbeat) and one for each name.

    Args:
        series: name → images, for each patient one at each of `times`.
    """
    first = next(iter(series.values()))
    table = pd.DataFrame({"patient": first.patients, "time": np.resize(times, len(first))})
    spacing = first.table["spacing"].to_numpy()
    areas = {name: [cavity_area(image, mm) for image, mm in zip(images.images[:, 0], spacing)]
             for name, images in series.items()}
    return table.assign(**areas, mask=(first.masks == LABELS["LV"]).sum((1, 2)) * spacing**2 / 100)


def cavity_curves(table: pd.DataFrame, names: Sequence[str], options: Mapping[str, int]) -> pd.DataFrame:
    """Mean area at each time with its interval over patients: columns what, time, value, low, high."""
    def rows() -> Iterator[dict[str, object]]:
        for name in names:
            for time, part in table.groupby("time"):
                score = mean_score(part[name].to_numpy(float), part["patient"].to_numpy(), **options)
                yield {"what": name, "time": time, "value": score.value, "low": score.low, "high": score.high}
    return pd.DataFrame(rows())
