"""Section `privacy` of ``params.yaml``: who attacks what, and with which controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from cmri_lib.config.kinds import Count, Share
from cmri_lib.errors import ParameterError
from cmri_lib.training import TrainSettings


@dataclass(frozen=True)
class PrivacyControl:
    """Patients, and slices of each, that the overfitted generator learns from; the share of the system's
    steps that it is trained for; systems that need a share of their own to learn so few slices by heart."""

    patients: Annotated[int, Field(ge=4)]
    slices: Count
    share: Share
    own_share: dict[str, Share]


@dataclass(frozen=True)
class GuardedSettings:
    """Slices of each patient of the control that the generator behind the safeguards learns from, and the share of the system's
    steps that it is trained for."""

    slices: Count
    share: Share


@dataclass(frozen=True)
class ShadowSettings:
    """Which system, and how many shadows: pairs that learn from complementary halves of the patients;
    the share of the system's steps that each is trained for."""

    system: Annotated[str, Field(min_length=1)]
    share: Share
    count: Annotated[int, Field(ge=4, multiple_of=2)]


@dataclass(frozen=True)
class RareSettings:
    """Which system learns from sets of patients in which some diseases are rare, and from even ones; the share of the system's
    steps; how many pairs of such sets; and how `few` patients of a rare disease are in one."""

    system: Annotated[str, Field(min_length=1)]
    share: Share
    pairs: Count
    few: Count


@dataclass(frozen=True)
class PrivacySettings:
    """Section `privacy`: systems that are attacked, each in all its trainings (`fidelity.repeated`); members and non-members
    (each at most `patients`), and `slices` of each; times between image (0) and noise (1), `draws` of noise
    (as many steps of the ODE, and eight times as many of inversion); `samples` drawn from every
    system; `copies` planted of every disguise; a `group` of patients (a disease,
    a vendor) has at least so many on either side; `arms` of what may drive leakage or lower it, and shadow models, which take
    trainings of their own."""

    systems: tuple[str, ...]
    patients: Annotated[int, Field(ge=4)]
    slices: Count
    times: tuple[Annotated[float, Field(gt=0, lt=1)], ...]
    draws: Count
    samples: Annotated[int, Field(ge=10)]
    copies: Count
    group: Annotated[int, Field(ge=2)]
    arms: tuple[Literal["patients", "length", "sampler", "guidance", "range", "vendor", "safeguards", "shadows", "rare"], ...]
    control: PrivacyControl
    guarded: GuardedSettings
    shadows: ShadowSettings
    rare: RareSettings
    detector: TrainSettings

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.control.own_share) - set(self.systems)):
            raise ParameterError(", ".join(unknown), field="privacy.control.own_share",
                                 remedy="name systems that stand in privacy.systems")
