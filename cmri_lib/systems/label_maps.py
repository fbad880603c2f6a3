"""The systems that draw label maps, by the review's ids. C5 trains none: it draws from the cohort, see `mask_moves`."""

from __future__ import annotations

from cmri_lib.cohort.case import LABELS
from cmri_lib.config.study import Study
from cmri_lib.generators.diffusion import Diffusion, DiffusionSettings
from cmri_lib.generators.label_maps import LabelMaps
from cmri_lib.generators.vae import VAE, VAEObjective
from cmri_lib.networks.conditioning.base import Conditioning
from cmri_lib.networks.unet import Denoiser, UNetSettings
from cmri_lib.networks.vae import Decoder, Encoder, VAESettings
from cmri_lib.systems.conditions import words
from cmri_lib.systems.unconditional import System

PLANES = len(LABELS) + 1


def _vae(study: Study, section: str) -> LabelMaps:
    way_in, sizes = Conditioning(), study.settings(f"{section}.network", VAESettings)
    objective = study.settings(f"{section}.objective", VAEObjective)
    networks = Encoder(sizes, way_in, PLANES), Decoder(sizes, way_in, PLANES)
    return LabelMaps(VAE(*networks, sizes.latent, way_in, objective), PLANES)


def _diffusion(study: Study, section: str) -> LabelMaps:
    """Li, Ma & Shi tell their label diffusion nothing. Here it is told level and phase: without them a mask cannot be
    judged by its level's rules, nor a set drawn with the levels and phases of a cohort."""
    way_in = words("level", "phase")
    network = Denoiser(study.settings(f"{section}.network", UNetSettings), way_in, PLANES)
    return LabelMaps(Diffusion(network, way_in, study.settings(f"{section}.objective", DiffusionSettings)), PLANES,
                     int(study.values["masks"]["diffusion"]["shrink"]))


MASK_SYSTEMS: dict[str, System] = {s.id: s for s in (
    System("C4 label VAE", "VAE", "none", "masks.vae", _vae),
    System("C10 label diffusion", "diffusion", "level + phase", "masks.diffusion", _diffusion),
)}
