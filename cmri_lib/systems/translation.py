"""Systems that make an image from another one of the same heart: C17, end-systole from end-diastole, and one vendor's scan from
another's; and C19, the image from a fraction of its k-space. All learn from random weights; the systems of one task learn from
the same pairs.

Of C17, Concat-FM sees the source beside the noise and Direct-FM starts from it in the place of noise; Pix2Pix (Isola
et al., CVPR 2017, arXiv 1611.07004) and a diffusion that sees the source (Saharia et al., "Palette", 2022,
arXiv 2111.05826) are what they are compared with.

No cohort has training patients who were scanned by several vendors. So the systems of `ACROSS_VENDORS` learn from
further scans of the phantom's training patients (`experiments.vendor_pairs`), and stand beside the register.
"""

from __future__ import annotations

from functools import partial

from cmri_lib.cohort.phase_pairs import phase_pairs
from cmri_lib.cohort.undersampling import undersampled
from cmri_lib.config.parameters import Parameters
from cmri_lib.config.translation import ReconstructionSection
from cmri_lib.generators.flow import DirectFlow
from cmri_lib.generators.reconstruction import RecCGAN
from cmri_lib.systems.builders import diffusion, flow, gan, regression
from cmri_lib.systems.conditional import pix2pix
from cmri_lib.systems.conditions import partner
from cmri_lib.systems.system import Make, System, Training

STAGE = "translation"
#: By so much a scan is accelerated.
ACCELERATIONS = (4, 8)


def _reconstruction(p: Parameters) -> ReconstructionSection:
    return p.translation.reconstruction


#: C17 by name: family, how the source enters, training, builder.
_C17: dict[str, tuple[str, str, Training, Make]] = {
    "Concat-FM": ("flow", "image (concat)", lambda p: p.translation.denoiser, flow(partner())),
    "Direct-FM": ("flow", "image (start)", lambda p: p.translation.denoiser,
                  flow(partner(concatenated=False), kind=DirectFlow)),
    "Pix2Pix": ("GAN", "image (concat)", lambda p: p.translation.pix2pix,
                gan(lambda p: p.conditional.pix2pix, pix2pix, partner())),
    "diffusion": ("diffusion", "image (concat)", lambda p: p.translation.denoiser, diffusion(partner())),
}
#: C17 by id: end-diastole → end-systole.
CONTRACTION: dict[str, System] = {f"C17 {name}": System(f"C17 {name}", family, conditioning, STAGE, training, make,
                                                        slices=phase_pairs)
                                  for name, (family, conditioning, training, make) in _C17.items()}
#: C17 by name: the scan by one vendor → the scan by another.
ACROSS_VENDORS: dict[str, System] = {name: System(f"C17 {name}, vendors", family, conditioning, STAGE, training, make)
                                     for name, (family, conditioning, training, make) in _C17.items()}
#: C19 by acceleration: the GAN, and the same generator without a critic.
RECONSTRUCTION: dict[int, tuple[System, System]] = {times: (
    System(f"C19 RecCGAN, {times} ×", "GAN", "image (concat)", STAGE, lambda p: _reconstruction(p).training,
           gan(_reconstruction, pix2pix, partner(), kind=RecCGAN), slices=partial(undersampled, acceleration=times)),
    System(f"C19 U-Net, {times} ×", "U-Net", "image (concat)", STAGE, lambda p: _reconstruction(p).training,
           regression(_reconstruction, pix2pix, partner()), slices=partial(undersampled, acceleration=times)),
) for times in ACCELERATIONS}
TRANSLATION: dict[str, System] = {**CONTRACTION, **{s.id: s for pair in RECONSTRUCTION.values() for s in pair}}
