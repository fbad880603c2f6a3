"""The one training loop: Accelerate, EMA, cosine schedule, CSV log, exact resume.

Everything trained in the study (generators, segmenter, feature extractor, region detector) is a `Trainable` and goes
through `train`. The randomness of a step comes from (seed, step, process) alone, and the order of the data from
(seed, epoch), so a training killed at any moment and run again ends in the same weights, bit for bit.
"""

from __future__ import annotations

import csv
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import torch
from accelerate import Accelerator
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from cmri_lib.errors import DataError, ParameterError
from cmri_lib.training.checkpoint import (load_weights, optimiser_tensors, read_note, read_tensors, restore_optimiser,
                                          write_tensors)
from cmri_lib.training.fingerprint import training_fingerprint
from cmri_lib.training.muon import Muon

Batch = dict[str, Tensor]
Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]
Momentum = Annotated[float, Field(ge=0, lt=1)]


class Trainable(nn.Module, ABC):
    """Anything the loop can train: a module that knows its own loss."""

    @abstractmethod
    def loss(self, batch: Batch, group: str) -> Tensor:
        """Scalar loss that parameter group `group` minimises, on a batch of named tensors, first axis B."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Name → parameters that one optimiser updates; adversarial models have two. Frozen parameters are left out."""
        return {"model": [p for p in self.parameters() if p.requires_grad]}

    def update_schedule(self, step: int, steps: int) -> Sequence[str]:
        """The groups that are updated at `step` of `steps`, in order; all of them unless overridden. A model whose objective
        changes during training (a critic with several updates per generator update, a network that grows) sets that here,
        from `step` alone, so that a resumed training goes on as if nothing had happened."""
        return tuple(self.parameter_groups())

    def forward(self, batch: Batch, group: str = "model") -> Tensor:
        # Accelerate and DDP synchronise gradients only for what runs through forward.
        return self.loss(batch, group)


@dataclass(frozen=True)
class TrainSettings:
    """What a reader may turn. `batch` is per process; `grad_clip` 0 clips nothing; `snapshots` EMA weights are kept on the
    way, equally spaced; `precision` is "no" or "bf16" (mixed), `compile` and `channels_last` are for GPUs as well;
    `optimiser` is "adamw" or "muon", which bears about four times the learning rate of AdamW."""

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
    checkpoint_every: Count = 250
    log_every: Count = 50
    validate_every: Number = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ParameterError(f"{getattr(self, name)} is not positive", field=name, remedy="give at least 1")
        for name, allowed in (("precision", ("no", "bf16")), ("optimiser", ("adamw", "muon"))):
            if getattr(self, name) not in allowed:
                raise ParameterError(f"{getattr(self, name)!r}", field=name, remedy=f"choose among {allowed}")
        if not 0 <= self.ema < 1 or not self.learning_rate > 0:
            raise ParameterError(f"ema {self.ema}, learning_rate {self.learning_rate}", field="ema",
                                 remedy="give an EMA decay in [0, 1) and a positive learning rate")

    def snapshot_steps(self) -> list[int]:
        """After which steps a snapshot is kept: `snapshots` equal parts of the way, the end excluded."""
        return [self.steps * k // (self.snapshots + 1) for k in range(1, self.snapshots + 1)]

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, then a half cosine (Loshchilov & Hutter 2017, eq. 5)."""
        warm = min(1.0, (step + 1) / max(1, min(self.warmup, self.steps // 10)))
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return self.learning_rate * warm * (self.final_rate + (1 - self.final_rate) * cosine)

    def decay(self, step: int) -> float:
        """EMA decay, shorter at the start so that the random initial weights are forgotten."""
        return min(self.ema, (1 + step) / (10 + step))


def train(model: Trainable, data: Mapping[str, Tensor], settings: TrainSettings, folder: str | Path, *,
          augment: Callable[[Batch], Batch] | None = None, validation: Mapping[str, Tensor] | None = None
          ) -> pd.DataFrame:
    """Train `model` on `data`, or return at once if `folder` already holds this very training.

    Args:
        model: built under a fixed seed; afterwards holds the EMA weights, in eval mode, on the device that Accelerate
            finds (``ACCELERATE_USE_CPU=1`` overrides).
        data: named tensors of one length N, kept on the device; a batch is a dict of their rows.
        folder: receives ``weights.safetensors``, ``log.csv``, snapshots and, while running, ``checkpoint.safetensors``.
        augment: acts on each batch, using torch's global random state.
        validation: data whose loss is logged every ``settings.validate_every`` steps, with the EMA weights.

    Returns:
        the log: step, images, seconds, images_per_s, learning_rate, grad_norm, loss_<group>, validation_loss.

    Raises:
        DataError: on data of unequal length or less than one image.
        CheckpointError: if a file in `folder` cannot be read.
    """
    sizes = {name: len(t) for name, t in data.items()}
    if len(set(sizes.values())) != 1 or not min(sizes.values()):
        raise DataError(f"tensors have lengths {sizes}", field="data", remedy="give at least one image, all fields alike")
    folder = Path(folder)
    identity = training_fingerprint(model, data, settings, augment)
    if (folder / "weights.safetensors").exists() and read_note(folder / "weights.safetensors")["identity"] == identity:
        load_weights(model, folder / "weights.safetensors")
        model.to(Accelerator().device).eval()
        return pd.read_csv(folder / "log.csv")
    return _Training(model, data, settings, folder, identity, augment, validation).go()


def mixed_seed(*parts: int) -> int:
    """One 62-bit seed from several integers, so that neighbouring steps share no randomness."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = ((value ^ (part + 0x632BE59BD9B4E019)) * 0xBF58476D1CE4E5B9) % 2**64
        value ^= value >> 31
    return value >> 2


def snapshot_file(folder: str | Path, step: int) -> Path:
    """Where the EMA weights after `step` are kept; `checkpoint.load_weights` reads them."""
    return Path(folder) / f"snapshot-{step:06d}.safetensors"


class _Training:
    """One training under way. Split from `train` so that each moving part is a short method."""

    def __init__(self, model: Trainable, data: Mapping[str, Tensor], settings: TrainSettings, folder: Path,
                 identity: dict, augment: Callable[[Batch], Batch] | None, validation: Mapping[str, Tensor] | None):
        self.accelerator = Accelerator()
        self.device = self.accelerator.device
        self.settings, self.folder, self.identity, self.augment = settings, folder, identity, augment
        layout = torch.channels_last if settings.channels_last else torch.preserve_format
        self.model = model.to(self.device, memory_format=layout)
        self.data = {k: v.to(self.device) for k, v in data.items()}
        self.validation = None if validation is None else {k: v.to(self.device) for k, v in validation.items()}
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        kind = Muon if settings.optimiser == "muon" else partial(torch.optim.AdamW, fused=True)
        self.groups = model.parameter_groups()
        self.optimisers = {name: self.accelerator.prepare(kind(
            parameters, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2),
            weight_decay=settings.weight_decay)) for name, parameters in self.groups.items()}
        self.wrapped = self.accelerator.prepare(torch.compile(model) if settings.compile else model)
        self.rows: list[dict] = []
        self.step, self.seconds = 0, 0.0

    def go(self) -> pd.DataFrame:
        torch.use_deterministic_algorithms(True, warn_only=True)
        self._resume()
        started, finished = time.perf_counter() - self.seconds, self.settings.steps
        snapshots = set(self.settings.snapshot_steps())
        only_here = {} if self.accelerator.is_main_process else {"disable": True}  # given, it would override TQDM_DISABLE
        bar = tqdm(total=finished, initial=self.step, desc=self.folder.name, mininterval=2.0, unit="step", **only_here)
        while self.step < finished:
            losses, norm = self._step()
            self.step += 1
            self.seconds = time.perf_counter() - started
            if self.step % self.settings.log_every == 0 or self.step == finished:
                self._log(losses, norm)
                bar.update(self.step - bar.n)
                bar.set_postfix_str(f"{self.rows[-1]['images_per_s']:.0f} images/s")
            if self.step % self.settings.checkpoint_every == 0 and self.step < finished:
                self._save("checkpoint.safetensors")
            if self.step in snapshots and self.accelerator.is_main_process:
                write_tensors(snapshot_file(self.folder, self.step), self.average, {"identity": self.identity})
        bar.close()
        return self._finish()

    def _step(self) -> tuple[dict[str, Tensor], Tensor]:
        self.model.train()
        rank = self.accelerator.process_index
        torch.manual_seed(mixed_seed(self.settings.seed, self.step, rank))
        batch = self._batch(self.step, rank)
        batch = batch if self.augment is None else self.augment(batch)
        losses = {}
        for group in self.model.update_schedule(self.step, self.settings.steps):
            optimiser = self.optimisers[group]
            for options in optimiser.param_groups:
                options["lr"] = self.settings.rate(self.step)
            # Not Accelerate's own mixed precision, which is fixed for a whole process; bf16 needs no loss scaling.
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
                loss = self.wrapped(batch, group)
            optimiser.zero_grad(set_to_none=True)
            self.accelerator.backward(loss)
            norm = self.accelerator.clip_grad_norm_(self.groups[group], self.settings.grad_clip or math.inf)
            optimiser.step()
            losses[group] = loss.detach()
        self._update_average()
        return losses, norm

    def _batch(self, step: int, rank: int) -> Batch:
        """Rows of this step: each epoch is a permutation drawn from (seed, epoch), shared by all processes."""
        n = len(next(iter(self.data.values())))
        wanted = step * self.settings.batch * self.accelerator.num_processes + rank * self.settings.batch
        rows = []
        for position in range(wanted, wanted + self.settings.batch):
            epoch, place = divmod(position, n)
            rows.append(self._permutation(epoch, n)[place])
        index = torch.stack(rows).to(self.device)
        return {name: tensor[index] for name, tensor in self.data.items()}

    def _permutation(self, epoch: int, n: int) -> Tensor:
        if getattr(self, "_epoch", None) != epoch:
            generator = torch.Generator().manual_seed(mixed_seed(self.settings.seed, -1, epoch))
            self._epoch, self._order = epoch, torch.randperm(n, generator=generator)
        return self._order

    @torch.no_grad()
    def _update_average(self) -> None:
        current = self.model.state_dict()
        floating = [name for name, value in current.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in floating], [current[n] for n in floating],
                             1 - self.settings.decay(self.step))
        for name in current.keys() - set(floating):
            self.average[name].copy_(current[name])

    def _log(self, losses: dict[str, Tensor], norm: Tensor) -> None:
        before = self.rows[-1] if self.rows else {"images": 0, "seconds": 0.0}
        images = self.step * self.settings.batch * self.accelerator.num_processes
        row = {"step": self.step, "images": images, "seconds": round(self.seconds, 3),
               "images_per_s": round((images - before["images"]) / max(1e-9, self.seconds - before["seconds"]), 1),
               "learning_rate": self.settings.rate(self.step - 1), "grad_norm": float(norm),
               **{f"loss_{group}": float(losses[group]) if group in losses else math.nan for group in self.groups},
               "validation_loss": math.nan}
        every = self.settings.validate_every
        if every and self.validation is not None and (self.step % every == 0 or self.step == self.settings.steps):
            row["validation_loss"] = self._validate()
        self.rows.append(row)
        if not all(math.isfinite(float(loss)) for loss in losses.values()):
            raise DataError(f"the loss became {losses} at step {self.step}", file=self.folder, field="loss",
                            remedy="lower learning_rate, or check the images for extreme values")

    @torch.no_grad()
    def _validate(self) -> float:
        """Mean loss on the validation data, EMA weights, the same noise every time."""
        current = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        torch.manual_seed(mixed_seed(self.settings.seed, -2))
        first, n, size = next(iter(self.groups)), len(next(iter(self.validation.values()))), 32
        total = 0.0
        for start in range(0, n, size):
            part = {k: v[start:start + size] for k, v in self.validation.items()}
            total += float(self.model.loss(part, first)) * len(next(iter(part.values())))
        self.model.load_state_dict(current)
        return total / n

    def _save(self, name: str) -> None:
        if not self.accelerator.is_main_process:
            return
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for group, optimiser in self.optimisers.items():
            tensors |= optimiser_tensors(group, optimiser)
        write_tensors(self.folder / name, tensors,
                      {"identity": self.identity, "step": self.step, "seconds": self.seconds, "rows": self.rows})

    def _resume(self) -> None:
        file = self.folder / "checkpoint.safetensors"
        if not file.exists() or (note := read_note(file))["identity"] != self.identity:
            return
        tensors = read_tensors(file)
        self.model.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        for name in self.average:
            self.average[name].copy_(tensors[f"average.{name}"])
        for group, optimiser in self.optimisers.items():
            restore_optimiser(group, optimiser, tensors)
        self.step, self.seconds, self.rows = note["step"], note["seconds"], note["rows"]

    def _finish(self) -> pd.DataFrame:
        self.model.load_state_dict(self.average)
        self.model.eval()
        log = pd.DataFrame(self.rows)
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            log.to_csv(self.folder / "log.csv", index=False, quoting=csv.QUOTE_MINIMAL)
            write_tensors(self.folder / "weights.safetensors", self.model.state_dict(),
                          {"identity": self.identity, "settings": asdict(self.settings)})
            (self.folder / "checkpoint.safetensors").unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        return log
