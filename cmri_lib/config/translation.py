"""Section `translation` of ``params.yaml``: how long systems that turn one image into another are trained."""

from __future__ import annotations

from dataclasses import dataclass

from cmri_lib.training import AdversarialTraining, TrainSettings


@dataclass(frozen=True)
class TranslationSettings:
    """Section `translation`: all from random weights, for as long as each other. Networks and objectives are those of sections
    `flow`, `diffusion` and `conditional.pix2pix`."""

    denoiser: TrainSettings
    pix2pix: AdversarialTraining
