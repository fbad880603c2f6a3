"""How long and how fast a network learns: what a reader may turn in every `training` section of ``params.yaml``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from cmri_lib.errors import ParameterError

Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]
Momentum = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class TrainSettings:
    """What a reader may turn. `batch` images make a step, shared among all processes; `grad_clip` 0 clips nothing;
    `snapshots` EMA weights are kept on the way, after 1/2, 1/4, … of it; `precision` is "no" or "bf16" (mixed), `compile`
    and `channels_last` are for GPUs as well; `optimiser` is "adamw" or "muon", which bears about four times the learning
    rate of AdamW."""

    steps: Count
    batch: Count = 8
    optimiser: Literal["adamw", "muon"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 1.0e-3
    warmup: Number = 100
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.01  # of learning_rate, at the end of the cosine
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    beta1: Momentum = 0.9
    beta2: Momentum = 0.99
    grad_clip: Annotated[float, Field(ge=0)] = 1.0
    ema: Momentum = 0.999
    seed: Number = 0
    precision: Literal["no", "bf16"] = "no"
    channels_last: bool = False
    compile: bool = False
    snapshots: Number = 0
    log_every: Count = 50
    validate_every: Number = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "log_every"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{getattr(self, name)} is not positive", field=name, remedy="give at least 1")
        for name, allowed in (("precision", ("no", "bf16")), ("optimiser", ("adamw", "muon"))):
            if getattr(self, name) not in allowed:
                raise ParameterError(f"{getattr(self, name)!r}", field=name, remedy=f"choose among {allowed}")
        if not 0 <= self.ema < 1 or not self.learning_rate > 0:
            raise ParameterError(f"ema {self.ema}, learning_rate {self.learning_rate}", field="ema",
                                 remedy="give an EMA decay in [0, 1) and a positive learning rate")

    def snapshot_steps(self) -> list[int]:
        """After which steps a snapshot is kept: …, 1/4 and 1/2 of the way, so that what a doubling of it brought is seen."""
        return sorted({self.steps >> k for k in range(1, self.snapshots + 1)} - {0})

    def rate(self, step: int, group: str = "model") -> float:
        """Learning rate of a group of parameters: linear warm-up, then a half cosine (Loshchilov & Hutter 2017, eq. 5)."""
        warm = min(1.0, (step + 1) / max(1, min(self.warmup, self.steps // 10)))
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * warm * (self.final_rate + (1 - self.final_rate) * cosine)

    def decay(self, step: int) -> float:
        """EMA decay, shorter at the start so that the random initial weights are forgotten."""
        return min(self.ema, (1 + step) / (10 + step))


@dataclass(frozen=True)
class AdversarialTraining(TrainSettings):
    """`critic_rate`: the critic's learning rate as a multiple of the generator's, which `learning_rate` is. A faster critic
    stays near its optimum without more steps of its own (Heusel et al., NeurIPS 2017, sec. 2); 4 is usual with SPADE."""

    critic_rate: Annotated[float, Field(gt=0)] = 1.0

    def rate(self, step: int, group: str = "model") -> float:
        return super().rate(step, group) * (self.critic_rate if group == "critic" else 1.0)
