"""C11: one anatomy at any phase of the heartbeat and any inversion time.

It learns from series of its own (`experiments.contrast`), which no cohort has, so it stands beside the register and not in it.
"""

from __future__ import annotations

import numpy as np

from cmri_lib.cohort.vocabulary import Vocabulary
from cmri_lib.config.parameters import Parameters
from cmri_lib.generators.cross_reconstruction import CrossVAE
from cmri_lib.networks.acquisition import AcquisitionState
from cmri_lib.networks.vae import Decoder, Encoder
from cmri_lib.systems.system import System

STAGE = "contrast"
#: Columns of a series' table that are conditions: the motion signal, and the logarithm of the inversion time in ms.
MOTION, LOG_TIME = "contraction", "log_inversion_time"


def _make(params: Parameters, vocabulary: Vocabulary) -> CrossVAE:
    chosen = params.contrast
    first, *_, last = np.log(chosen.inversion_times)
    scales = {MOTION: (0.5, 0.5), LOG_TIME: (float(first + last) / 2, float(last - first) / 2)}
    conditioning = AcquisitionState(scales, chosen.condition, chosen.network.size)
    return CrossVAE(Encoder(chosen.network, conditioning), Decoder(chosen.network, conditioning), chosen.network.latent,
                    conditioning, chosen.objective)


MANIFOLD = System("C11 cVAE manifold", "VAE", "motion + inversion time", STAGE, lambda p: p.contrast.training, _make)
