"""The one register: every system of the review that this study trains, by id."""

from __future__ import annotations

from cmri_lib.errors import ParameterError
from cmri_lib.systems.conditional import CONDITIONAL
from cmri_lib.systems.label_maps import LABEL_MAPS
from cmri_lib.systems.private import RDP_CGAN
from cmri_lib.systems.system import System
from cmri_lib.systems.translation import TRANSLATION
from cmri_lib.systems.unconditional import UNCONDITIONAL
from cmri_lib.systems.vendors import SOURCE_DOMAIN
from cmri_lib.systems.volumes import STACK_LDM

SYSTEMS: dict[str, System] = {**UNCONDITIONAL, **CONDITIONAL, **LABEL_MAPS, **TRANSLATION,
                             SOURCE_DOMAIN.id: SOURCE_DOMAIN, RDP_CGAN.id: RDP_CGAN, STACK_LDM.id: STACK_LDM}


def system(name: str) -> System:
    """The system of that id. Raises ParameterError with the known ids."""
    if name not in SYSTEMS:
        raise ParameterError(f"unknown system {name!r}", field="system", remedy=f"choose among {list(SYSTEMS)}")
    return SYSTEMS[name]
