"""Section `contrast` of ``params.yaml``: one anatomy at any phase and any inversion time (notebook 16)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from cmri_lib.config.kinds import Count, Positive
from cmri_lib.errors import ParameterError
from cmri_lib.generators.cross_reconstruction import CrossObjective
from cmri_lib.networks.vae import VAESettings
from cmri_lib.training import TrainSettings

Contraction = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class VirtualPatients:
    """How many are drawn for each split."""

    train: Count
    validation: Count
    test: Annotated[int, Field(ge=3)]


@dataclass(frozen=True)
class ContrastSettings:
    """Section `contrast`.

    Virtual patients, scanned by `vendor` at every one of `contractions` (0 at ED, 1 at ES) and `inversion_times` (ms) with the
    read-out's `flip` angle (degrees), over `field_of_view` mm; the system's network, planes of its `condition`, objective and
    training; `sources`: images of each test patient from which a code is read; `moments` of the heartbeat at which the cavity
    is measured.

    Raises:
        ParameterError: if there is no second state, or too few times for a fit of three numbers.
    """

    patients: VirtualPatients
    vendor: Literal["A", "B", "C", "D"]
    contractions: Annotated[tuple[Contraction, ...], Field(min_length=1)]
    inversion_times: tuple[Positive, ...]
    flip: Annotated[float, Field(gt=0, lt=180)]
    field_of_view: Positive
    network: VAESettings
    condition: Count
    objective: CrossObjective
    training: TrainSettings
    sources: Count
    moments: Count

    def sides(self, size: int) -> dict[str, int]:
        """The network's scans are as large as it makes them, whatever the size of the cohort's images."""
        return {"network": self.network.size}

    def __post_init__(self) -> None:
        if len(set(self.inversion_times)) < 4 or list(self.inversion_times) != sorted(set(self.inversion_times)):
            raise ParameterError(f"{self.inversion_times}", field="contrast.inversion_times",
                                 remedy="give four or more times, rising: a recovery has three unknowns")
        if list(self.contractions) != sorted(set(self.contractions)):
            raise ParameterError(f"{self.contractions}", field="contrast.contractions", remedy="give them rising, each once")
