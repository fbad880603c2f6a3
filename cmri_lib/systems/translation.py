"""C17: systems that turn an image into another of the same heart, end-diastole into end-systole.

Concat-FM sees the source beside the noise, Direct-FM starts from it in the place of noise; Pix2Pix (Isola et al., CVPR 2017,
arXiv 1611.07004) and a diffusion that sees the source (Saharia et al., "Palette", 2022, arXiv 2111.05826) are what they are
compared with. All learn from the same pairs, from random weights.
"""

from __future__ import annotations

from cmri_lib.generators.flow import DirectFlow
from cmri_lib.systems.builders import diffusion, flow, gan
from cmri_lib.systems.conditional import pix2pix
from cmri_lib.systems.conditions import partner
from cmri_lib.systems.system import Make, System, Training

#: From which phase to which.
PHASES = ("ED", "ES")


def _translation(id: str, family: str, conditioning: str, training: Training, make: Make) -> System:
    return System(id, family, conditioning, "translation", training, make, pairs=PHASES)


TRANSLATION: dict[str, System] = {s.id: s for s in (
    _translation("C17 Concat-FM", "flow", "image (concat)", lambda p: p.translation.denoiser, flow(partner())),
    _translation("C17 Direct-FM", "flow", "image (start)", lambda p: p.translation.denoiser,
                 flow(partner(concatenated=False), kind=DirectFlow)),
    _translation("C17 Pix2Pix", "GAN", "image (concat)", lambda p: p.translation.pix2pix,
                 gan(lambda p: p.conditional.pix2pix, pix2pix, partner())),
    _translation("C17 diffusion", "diffusion", "image (concat)", lambda p: p.translation.denoiser, diffusion(partner())),
)}
