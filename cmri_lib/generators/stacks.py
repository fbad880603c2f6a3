"""Generators of whole stacks, image and label map together: what they learn from, and how their samples become `Slices`.

The generator itself is a `Latent` whose images have a plane for each label and a third dimension. Its samples come with a label
map of their own, drawn and not given, so each is a patient of its own.
"""

from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from cmri_lib.cohort.slices import Slices
from cmri_lib.cohort.stacks import as_volumes, resampled
from cmri_lib.errors import SplitError
from cmri_lib.generators.base import LEARN_FROM, as_own_patients, seeded_noise
from cmri_lib.generators.latent import Latent
from cmri_lib.networks.conditioning.base import Batch
from cmri_lib.networks.stack_autoencoder import with_labels


def stack_batch(slices: Slices, planes: int, labels: int) -> Batch:
    """The tensors that a generator of stacks trains on: "image" (S, 1 + labels, planes, H, W) of the S stacks of `slices`.

    Raises:
        SplitError: on test or hold-out patients.
    """
    if wrong := sorted(set(slices.table["split"]) - set(LEARN_FROM)):
        raise SplitError(f"stacks of {wrong} offered for training", field="split",
                         remedy='train on slices.where(split="train")')
    images, masks = as_volumes(resampled(slices, planes), planes)
    return {"image": with_labels(torch.from_numpy(images)[:, None], torch.from_numpy(masks), labels)}


@torch.no_grad()
def draw_stacks(generator: Latent, conditions: Slices, source: str, *, seed: int = 0, batch: int = 4,
                **choices: object) -> Slices:
    """One synthetic stack, image and label map, for every stack of `conditions`.

    As in `base.draw`, the noise of sample i depends on (seed, i) alone. Of `conditions` only the geometry is used: how large a
    pixel is, and how long the axis. Planes know their place, so `height` and `level` are kept; vendor, disease and phase are
    unknown, for nobody has asked for one.

    Args:
        generator: with a first stage of stacks.
        conditions: real slices.
        source: the system's id, for the table.
        seed: of the noise.
        batch: stacks evaluated at once.
        choices: for the sampler, e.g. ``steps=4``.

    Returns:
        (stacks · planes) slices, apex first in every stack, whose masks the generator has drawn with the image.
    """
    planes = generator.autoencoder.planes
    places, shape = resampled(conditions, planes).table, generator.noise_shape(conditions.size)
    count = len(places) // planes
    generator.eval()
    images, masks = [], []
    for start in tqdm(range(0, count, batch), desc=f"draw {source}", mininterval=2.0, unit="batch"):
        noise = seeded_noise(seed, range(start, min(start + batch, count)), shape)
        made = generator.sample(noise.to(generator.device), {}, **choices).float().cpu()
        images.append(made[:, 0].clamp(-1, 1).numpy())
        masks.append(made[:, 1:].argmax(dim=1).to(torch.uint8).numpy())
    side = conditions.size
    return Slices(np.concatenate(images).reshape(-1, 1, side, side), np.concatenate(masks).reshape(-1, side, side),
                  as_own_patients(places, source, ("level",), planes))
