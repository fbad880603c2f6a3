"""What does each metric see? Known faults put into real slices, and the answer of every metric to them.

A corruption takes clean real slices in the place of samples and returns as many, spoilt: `strength` 0 changes nothing,
1 everything. Some spoil every image (blur, noise, shading, torn anatomy), some only the set (fewer patients, one level,
copies of training), one only the pairing of image and mask. A metric that does not answer to a fault cannot vouch for
its absence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter, map_coordinates

from cmri_lib.cohort.slices import Slices
from cmri_lib.errors import DataError
from cmri_lib.measures.statistics.comparison import patient_partition

#: (clean slices, strength, random numbers) → as many spoilt slices.
Corruption = Callable[[Slices, float, np.random.Generator], Slices]
#: (real slices, samples) → value.
Value = Callable[[Slices, Slices], float]

#: Training images that a memorising, collapsed generator repeats.
MEMORISED = 10
#: A response beyond this says no more than "far"; also that of a metric without any spread between real groups.
LARGEST = 99.0
#: Patients that are left of any number at strength 1; fewer give neither neighbours nor folds.
PATIENTS_LEFT = 4


def with_images(slices: Slices, images: np.ndarray) -> Slices:
    """The same slices with other images (N, 1, H, W), clipped to [−1, 1]."""
    return Slices(np.clip(images, -1, 1).astype(np.float32), slices.masks, slices.table, slices.tissues)


def blurred(slices: Slices, strength: float, generator: np.random.Generator) -> Slices:
    """Gaussian blur of up to 1/40 of the side."""
    deviation = strength * slices.size / 40
    return with_images(slices, gaussian_filter(slices.images, (0, 0, deviation, deviation)))


def noisy(slices: Slices, strength: float, generator: np.random.Generator) -> Slices:
    """Gaussian noise of standard deviation up to 0.3, of a range of 2."""
    return with_images(slices, slices.images + 0.3 * strength * generator.standard_normal(slices.images.shape))


def shaded(slices: Slices, strength: float, generator: np.random.Generator) -> Slices:
    """A smooth multiplicative field, as of a surface coil, of up to about e^±1 at its extremes."""
    field = _smooth(slices, generator, fraction=0.25)
    return with_images(slices, (slices.images + 1) * np.exp(strength * field / 2) - 1)


def deformed(slices: Slices, strength: float, generator: np.random.Generator) -> Slices:
    """Elastic displacements with a standard deviation of up to 5 % of the side, smooth over an eighth of it: the image
    bends and the mask stays."""
    shift = [0.05 * strength * slices.size * _smooth(slices, generator, fraction=0.125)[:, 0] for _ in range(2)]
    grid = np.meshgrid(*(np.arange(slices.size),) * 2, indexing="ij")
    images = [map_coordinates(image, [g + s[i] for g, s in zip(grid, shift)], order=1, mode="nearest")
              for i, image in enumerate(slices.images[:, 0])]
    return with_images(slices, np.stack(images)[:, None])


def torn(slices: Slices, strength: float, generator: np.random.Generator, grid: int = 4) -> Slices:
    """The share `strength` of the patches of a `grid` × `grid` division changes places: right texture, no heart.

    Raises:
        DataError: if the side is no multiple of `grid`.
    """
    side, rest = divmod(slices.size, grid)
    if rest:
        raise DataError(f"images of {slices.size}² have no {grid} × {grid} equal patches", field="images",
                        remedy=f"crop them to a multiple of {grid}")
    patches = slices.images[:, 0].reshape(len(slices), grid, side, grid, side).swapaxes(2, 3)
    patches = patches.reshape(len(slices), grid**2, side, side).copy()
    for image in patches:
        moved = generator.permutation(grid**2)[:round(strength * grid**2)]
        image[moved] = image[np.roll(moved, 1)]
    joined = patches.reshape(len(slices), grid, grid, side, side).swapaxes(2, 3)
    return with_images(slices, joined.reshape(slices.images.shape))


def phase_randomised(slices: Slices, strength: float, generator: np.random.Generator) -> Slices:
    """The phases of all frequencies turn by up to `strength` of random ones: the power spectrum stays (but for values
    clipped to the range), and at strength 1 no heart does."""
    noise = np.angle(np.fft.rfft2(generator.standard_normal(slices.images.shape)))
    noise[..., 0, 0] = 0  # the mean keeps its sign
    turned = np.fft.rfft2(slices.images) * np.exp(1j * strength * noise)
    return with_images(slices, np.fft.irfft2(turned, s=slices.images.shape[2:]))


def few_patients(slices: Slices, strength: float, generator: np.random.Generator) -> Slices:
    """Mode collapse: only some patients are left, `PATIENTS_LEFT` at strength 1, and their slices fill the places."""
    names = np.unique(slices.patients)
    left = max(min(PATIENTS_LEFT, len(names)), round((1 - strength) * len(names)))
    kept = np.flatnonzero(np.isin(slices.patients, generator.permutation(names)[:left]))
    return _refilled(slices, ~np.isin(np.arange(len(slices)), kept), slices.take(kept), generator)


def one_level(slices: Slices, strength: float, generator: np.random.Generator) -> Slices:
    """A lost mode: the share `strength` of apical and basal slices gives way to mid-ventricular ones."""
    mid = (slices.table["level"] == "mid").to_numpy()
    lost = ~mid & (generator.random(len(slices)) < strength)
    return _refilled(slices, lost, slices.take(mid), generator)


def shuffled_masks(slices: Slices, strength: float, generator: np.random.Generator) -> Slices:
    """The share `strength` of the slices exchange their masks: each image is real, and shows another heart."""
    order, moved = np.arange(len(slices)), np.flatnonzero(generator.random(len(slices)) < strength)
    order[moved] = generator.permutation(moved)
    return Slices(slices.images, slices.masks[order], slices.table)


def copied(training: Slices) -> Corruption:
    """The share `strength` of the samples are training slices, each used once as far as they reach: memory."""
    def corruption(slices: Slices, strength: float, generator: np.random.Generator) -> Slices:
        return _refilled(slices, generator.random(len(slices)) < strength, training, generator)
    return corruption


def memorised(training: Slices, images: int = MEMORISED) -> Corruption:
    """The share `strength` of the samples repeat a few training slices: memory and collapse together."""
    def corruption(slices: Slices, strength: float, generator: np.random.Generator) -> Slices:
        few = training.take(generator.permutation(len(training))[:images])
        return _refilled(slices, generator.random(len(slices)) < strength, few, generator)
    return corruption


def corruptions(training: Slices) -> dict[str, Corruption]:
    """All corruptions by the name a figure gives them."""
    return {"blur": blurred, "noise": noisy, "shading": shaded, "deformed": deformed, "torn": torn,
            "few patients": few_patients, "one level": one_level, "copied training": copied(training),
            "few copies": memorised(training), "masks shuffled": shuffled_masks}


def _smooth(slices: Slices, generator: np.random.Generator, fraction: float) -> np.ndarray:
    """(N, 1, H, W) Gaussian fields of unit variance over each image, correlated over `fraction` of the side."""
    width = fraction * slices.size
    field = gaussian_filter(generator.standard_normal(slices.images.shape), (0, 0, width, width), mode="reflect")
    field -= field.mean((2, 3), keepdims=True)
    return field / field.std((2, 3), keepdims=True)


def _refilled(slices: Slices, lost: np.ndarray, others: Slices, generator: np.random.Generator) -> Slices:
    """Images and masks of `lost` slices (a boolean mask) are replaced by those of `others`, each equally often.

    A replacement takes the place's row of the table, as a sample without a condition would, so a metric is not told
    by the patient's name that two samples are copies.
    """
    images, masks, places = slices.images.copy(), slices.masks.copy(), np.flatnonzero(lost)
    if not len(places):
        return slices
    if not len(others):
        raise DataError("no slices to put in the place of others", field="slices",
                        remedy="leave this corruption out, or give a set that has such slices")
    rounds = -(-len(places) // len(others))
    chosen = np.concatenate([generator.permutation(len(others)) for _ in range(rounds)])[:len(places)]
    images[places], masks[places] = others.images[chosen], others.masks[chosen]
    return Slices(images, masks, slices.table)


def sensitivity(real: Slices, metrics: Mapping[str, Value], better: Mapping[str, str],
                faults: Mapping[str, Corruption], *, sizes: tuple[int, int] = (400, 400), strength: float = 0.5,
                repeats: int = 3, partitions: int = 20, seed: int = 0) -> pd.DataFrame:
    """How strongly each metric answers to each corruption, against its spread between real groups of patients.

    Real slices are split into two groups without a common patient, again and again. The values of all `partitions`
    are the floor; in the first `repeats` the second group is corrupted.

    Args:
        real: real slices that no generator has learnt from.
        metrics: name → function of (real, samples). Let feature spaces be remembered per image (`learned_features.Cached`), for
            every group is made of the same slices.
        better: name → "lower", "higher" or "zero" (both signs are faults).
        faults: name → corruption.
        sizes: slices of the two groups, less in proportion if `real` has fewer.
        strength: of the corruptions, in [0, 1].

    Returns:
        One row per metric and corruption: metric, corruption, strength; ``clean`` and ``value``, means over the
        repeats; ``response`` = (value − clean) / spread, turned so that + is worse and cut off at ±`LARGEST`,
        where `spread` is the standard deviation of the floor; ``beyond``: is the mean value outside the floor's
        97.5 % quantile, on the worse side?

    Raises:
        DataError: if a metric has no `better`, or `strength` or `partitions` are out of range.
    """
    if missing := sorted(set(metrics) - set(better)):
        raise DataError(f"no direction for {missing}", field="better", remedy="say lower, higher or zero")
    if not 0 <= strength <= 1 or partitions < max(3, repeats):
        raise DataError(f"strength {strength}, {partitions} partitions", field="sensitivity",
                        remedy="use a strength in [0, 1] and at least 3 partitions, no fewer than repeats")
    generator = np.random.default_rng(seed)
    groups = [tuple(real.take(part) for part in patient_partition(real.patients, sizes, generator))
              for _ in range(partitions)]
    def measured(pairs: list[tuple[Slices, Slices]]) -> pd.DataFrame:
        return pd.DataFrame([{name: value(*pair) for name, value in metrics.items()} for pair in pairs])

    floor = measured(groups)
    rows = []
    for fault, corruption in faults.items():
        spoilt = measured([(x, corruption(y, strength, generator)) for x, y in groups[:repeats]])
        rows += [{"metric": name, "corruption": fault, "strength": strength,
                  **_response(spoilt[name].to_numpy(), floor[name].to_numpy(), better[name])} for name in metrics]
    return pd.DataFrame(rows)


def _response(values: np.ndarray, floor: np.ndarray, better: str) -> dict[str, object]:
    """The numbers of one cell: `values` belong to the first entries of `floor`."""
    worse = {"lower": lambda v: v, "higher": lambda v: -v, "zero": np.abs}[better]
    harm, usual = worse(values), worse(floor)
    spread = float(usual.std(ddof=1))
    change = float((harm - usual[:len(harm)]).mean())
    return {"clean": float(floor[:len(values)].mean()), "value": float(values.mean()), "response": response(change, spread),
            "beyond": bool(harm.mean() > np.quantile(usual, 0.975))}


def response(change: float, spread: float) -> float:
    """`change` in units of `spread`, within ±`LARGEST`: any change is far where real groups do not differ at all."""
    if not spread:
        return float(np.sign(change)) * LARGEST
    return float(np.clip(change / spread, -LARGEST, LARGEST))
