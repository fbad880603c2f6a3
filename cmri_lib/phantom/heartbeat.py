"""The heart of a virtual patient at any moment of its beat, between the two phases that a cohort holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cmri_lib.errors import ParameterError
from cmri_lib.phantom.anatomy import Anatomy, HeartPhase, with_right_ventricle


def heart_at(anatomy: Anatomy, contraction: float) -> HeartPhase:
    """The heart between ED (`contraction` 0) and ES (1), by the three principles of systole.

    The endocardium moves in proportion to `contraction` and so does the base; the outer wall follows from incompressible
    myocardium, at every level and angle; the volume of the RV changes in proportion.

    Raises:
        ParameterError: if `contraction` is outside 0 … 1.
    """
    if not 0 <= contraction <= 1:
        raise ParameterError(f"{contraction}", field="contraction", remedy="give a number from 0, ED, to 1, ES")
    ed, es = anatomy.phases["ED"], anatomy.phases["ES"]

    def between(first: np.ndarray | float, last: np.ndarray | float) -> np.ndarray | float:
        return (1 - contraction) * first + contraction * last

    endo, base = between(ed.endo, es.endo), between(ed.base, es.base)
    length = (ed.apex - base) / (ed.apex - ed.base)
    epi = np.sqrt(endo**2 + (ed.epi**2 - ed.endo**2) / length)
    lv = HeartPhase(endo, epi, epi, base, ed.apex, between(ed.rv_base, es.rv_base), contraction)
    return with_right_ventricle(lv, between(ed.rv_volume, es.rv_volume), anatomy.details)


def beating(anatomy: Anatomy, contractions: Sequence[float]) -> Anatomy:
    """The same patient, who has a phase of the heart for each of `contractions` beside ED and ES; its key is the number."""
    return replace(anatomy, phases={**anatomy.phases, **{str(c): heart_at(anatomy, c) for c in contractions}})


def motion_signal(time: np.ndarray | float, systole: float = 0.35) -> np.ndarray:
    """Contraction at `time`, in heartbeats from ED: 0 at ED, 1 at ES, smooth and periodic.

    Two half periods of a cosine, a short one while the heart contracts and a long one while it fills, so that its rate of
    change is continuous and 0 at ED and ES.

    Args:
        systole: share of the heartbeat from ED to ES, about a third at rest.

    Raises:
        ParameterError: if `systole` is not between 0 and 1.
    """
    if not 0 < systole < 1:
        raise ParameterError(f"{systole}", field="systole", remedy="give a share of the heartbeat, between 0 and 1")
    share = np.mod(time, 1.0)
    angle = np.where(share < systole, share / systole, 1 + (share - systole) / (1 - systole)) * np.pi
    return (1 - np.cos(angle)) / 2
