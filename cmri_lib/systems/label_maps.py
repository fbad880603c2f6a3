"""The systems that draw label maps (C4, C10), and the chains of a source of masks and a mask-to-image system (C4, C5, C10).

C5 trains no generator of masks: it draws from the cohort, see `generators.disease_shift.uniform_ef`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cmri_lib.systems.builders import label_diffusion, label_vae
from cmri_lib.systems.conditional import CONDITIONAL
from cmri_lib.systems.conditions import categories
from cmri_lib.systems.system import System, file_name

LABEL_VAE = System("C4 label VAE", "VAE", "none", "masks", lambda p: p.masks.vae.training, label_vae(lambda p: p.masks.vae))
#: Li, Ma & Shi condition their label diffusion on nothing. Here it has level and phase: without them a mask cannot be
#: judged by its level's rules, nor a set drawn with the levels and phases of a cohort.
LABEL_DIFFUSION = System("C10 label diffusion", "diffusion", "level + phase", "masks", lambda p: p.masks.diffusion.training,
                         label_diffusion(categories("level", "phase")))
LABEL_MAPS: dict[str, System] = {s.id: s for s in (LABEL_VAE, LABEL_DIFFUSION)}


@dataclass(frozen=True)
class Chain:
    """A source of masks followed by a mask-to-image system: a row of the tables and a bank of its own.

    Attributes:
        id: of the tables. images: the system that turns masks into images. masks: the system that draws them, or None.
    """

    id: str
    images: System
    masks: System | None = None
    stage: str = "masks"

    @property
    def family(self) -> str:
        return self.images.family

    @property
    def conditioning(self) -> str:
        return self.images.conditioning

    @property
    def folder(self) -> str:
        """A name for files."""
        return file_name(self.id)


#: Both image systems have the heart's labels as condition, whatever the cohort knows: such masks have no other tissue.
CHAINS: dict[str, Chain] = {c.id: c for c in (
    Chain("C4 VAE masks + SPADE cGAN", CONDITIONAL["C4 SPADE cGAN"], LABEL_VAE),
    Chain("C5 uniform-EF masks + SPADE cGAN", CONDITIONAL["C4 SPADE cGAN"]),
    Chain("C10 label diffusion + SPADE LDM", CONDITIONAL["C10 SPADE LDM"], LABEL_DIFFUSION),
)}
