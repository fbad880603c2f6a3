"""The one training loop: Accelerate, EMA, cosine schedule, CSV log, exact resume.

Everything trained in the study (generators, segmenter, feature extractor, region detector) is a `Trainable` and goes through
`train`. The randomness of a step comes from (seed, step) alone, and the order of the data from (seed, epoch), so a training
killed at any moment and run again ends in the same weights: bit for bit on a CPU, but for rounding on a GPU, whose fast kernels
add in any order. Several processes share each batch (`shared`).
"""

from __future__ import annotations

import csv
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from cmri_lib.errors import DataError
from cmri_lib.training.batches import Batch, Batches, seed_draws
from cmri_lib.training.checkpoint import halved, optimiser_tensors, read_note, read_tensors, restore_optimiser, write_tensors
from cmri_lib.training.fingerprint import training_fingerprint
from cmri_lib.training.kept import train_unless_done
from cmri_lib.training.muon import Muon
from cmri_lib.training.recorded import Recorded
from cmri_lib.training.settings import TrainSettings
from cmri_lib.training.shared import accelerator_as_launched, draws_of_share

#: First steps that a training notes, for a replay to repeat, see `kept`; and of what a GPU trains: a CPU is slow at that.
NOTED, NOTED_OF_GPU = 8, 2


class Trainable(nn.Module, ABC):
    """Anything the loop can train: a module that knows its own loss."""

    #: So many images are coupled at once, see `couple`: a multiple of the batch, or 0 for none.
    pool = 0
    #: Whether a GPU may record the loss once and replay it, see `recorded`: nothing in it asks Python or a CPU what comes next.
    #: `branch` says what it does in one step and not in another; each branch is recorded by itself.
    recordable = False
    branch: Hashable = None
    #: Of several groups of parameters the one whose loss looks at the data; the others learn from it alone.
    private_group: str | None = None

    @abstractmethod
    def loss(self, batch: Batch, group: str) -> Tensor:
        """Scalar loss that parameter group `group` minimises, on a batch of named tensors, first axis B."""

    def couple(self, images: Batch, generator: torch.Generator) -> Batch:
        """What the images of a pool have only together (which noise belongs to which, say): tensors that join their batches.
        For models whose batch is too small for what they couple."""
        return {}

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


def train(model: Trainable, data: Mapping[str, Tensor], settings: TrainSettings, folder: str | Path, *,
          augment: Callable[[Batch], Batch] | None = None, validation: Mapping[str, Tensor] | None = None,
          source: Mapping[str, Tensor] | None = None, checkpoint_seconds: float = 20.0) -> pd.DataFrame:
    """Train `model` on `data`, or return at once if `folder` already holds this very training.

    Args:
        model: built under a fixed seed; afterwards holds the EMA weights, in eval mode, on the device that Accelerate
            finds (``ACCELERATE_USE_CPU=1`` overrides).
        data: named tensors of one length N, kept on the device; a batch is a dict of their rows.
        folder: receives ``weights.safetensors``, ``log.csv``, snapshots and, while running, ``checkpoint.safetensors``.
        augment: acts on each batch, using torch's global random state.
        validation: data whose loss is logged every ``settings.validate_every`` steps, with the EMA weights.
        source: what `data` was computed from, by networks whose weights are part of the model. It says in the place of `data`
            which training this is: another processor computes `data` a little differently.
        checkpoint_seconds: at most so much is lost when the training is killed.

    A training, finished or under way, is kept where only its code or the version of torch has changed since, if a replay of its
    first steps gives the same losses, gradients and averages; so a new name does not cost a night. Replays run on a CPU, as one
    process, so that any machine can repeat what a GPU has trained. What acts later only (a network that grows) no replay sees.

    Returns:
        the log: step, images, seconds, images_per_s, learning_rate, grad_norm, loss_<group>, validation_loss.

    Raises:
        DataError: on data of unequal length or less than one image.
        ParameterError: if mixed precision is set in Accelerate's environment, or the processes cannot share a batch, or
            a pool holds no whole number of batches.
        CheckpointError: if a file in `folder` cannot be read.
    """
    sizes = {name: len(t) for name, t in data.items()}
    if len(set(sizes.values())) != 1 or not min(sizes.values()):
        raise DataError(f"tensors have lengths {sizes}", field="data", remedy="give at least one image, all fields alike")
    folder = Path(folder)
    identity = training_fingerprint(model, data if source is None else source, settings, augment)
    training = partial(Training, data=data, settings=settings, folder=folder, identity=identity, augment=augment,
                       validation=validation, checkpoint_seconds=checkpoint_seconds)
    return train_unless_done(model, folder, identity, training)


def device_name(device: torch.device) -> str:
    """The kind of device that a training's seconds belong to: "cpu", or a GPU's name. Several are joined by " + "."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def snapshot_file(folder: str | Path, step: int) -> Path:
    """Where the EMA weights after `step` are kept; `checkpoint.load_weights` reads them."""
    return Path(folder) / f"snapshot-{step:06d}.safetensors"


class Training:
    """One training under way. Split from `train` so that each moving part is a short method.

    `alone`: on the CPU and by this process alone, however Accelerate was launched. The first steps of such a training are noted
    on the way; those of any other are another's, who repeats them alone.
    """

    def __init__(self, model: Trainable, data: Mapping[str, Tensor], settings: TrainSettings, folder: Path,
                 identity: dict, augment: Callable[[Batch], Batch] | None, validation: Mapping[str, Tensor] | None,
                 checkpoint_seconds: float, alone: bool = False):
        self.accelerator, self.checkpoint_seconds = accelerator_as_launched(model.parameter_groups()), checkpoint_seconds
        self.device, prepare = self.accelerator.device, self.accelerator.prepare
        self.rank, self.processes = self.accelerator.process_index, self.accelerator.num_processes
        if alone:
            self.device, prepare, self.rank, self.processes = torch.device("cpu"), lambda part: part, 0, 1
        self.settings, self.folder, self.identity, self.augment = settings, folder, identity, augment
        layout = torch.channels_last if settings.channels_last else torch.preserve_format
        self.model = model.to(self.device, memory_format=layout).train()  # some keep a part in eval mode: they must be asked
        self.batches = Batches({k: v.to(self.device) for k, v in data.items()}, settings, self.processes, model.pool,
                               model.couple)
        self.validation = None if validation is None else {k: v.to(self.device) for k, v in validation.items()}
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        kind = Muon if settings.optimiser == "muon" else partial(torch.optim.AdamW, fused=True)
        self.groups = model.parameter_groups()
        # Not prepared: in data parallelism Accelerate's wrapper adds nothing but half a millisecond to each step.
        self.optimisers = {name: kind(parameters, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2),
                                      weight_decay=settings.weight_decay) for name, parameters in self.groups.items()}
        self.wrapped = prepare(torch.compile(model) if settings.compile and not alone else model)
        self.records = self.device.type == "cuda" and self.processes == 1 and model.recordable
        self.recorded: dict[tuple[str, Hashable], Recorded] = {}
        self.rows: list[dict] = []
        self.first_steps: list[list[float]] = []
        self.notes_steps = self.device.type == "cpu" and self.processes == 1
        self.noted = NOTED if self.device.type == "cpu" else NOTED_OF_GPU
        self.step, self.seconds, self.before = 0, 0.0, []  # `before`: the devices that had this training

    def go(self) -> pd.DataFrame:
        # Made deterministic, a GPU's bilinear interpolation takes most of a VAE's step.
        torch.use_deterministic_algorithms(self.device.type == "cpu", warn_only=True)
        self._resume()
        started, finished = time.perf_counter() - self.seconds, self.settings.steps
        saved = time.perf_counter()
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
            if self.step < finished and time.perf_counter() - saved >= self.checkpoint_seconds:
                self._save("checkpoint.safetensors")
                saved = time.perf_counter()
            if self.step in snapshots and self.accelerator.is_main_process:
                write_tensors(snapshot_file(self.folder, self.step), halved(self.average), {"identity": self.identity})
        bar.close()
        self.recorded.clear()  # each holds memory of the GPU, and this object in a circle
        return self._finish()

    def replay(self, steps: int) -> list[list[float]]:
        """The first steps, nothing saved: of each its losses, the norm of its gradient and that of the averaged weights."""
        torch.use_deterministic_algorithms(True, warn_only=True)
        while self.step < min(steps, self.settings.steps):
            self._step()
            self.step += 1
        return self.first_steps

    def _step(self) -> tuple[dict[str, Tensor], Tensor]:
        # The compiler does not see that `randn_like` is cut: then each process has draws of its own.
        own, sharing = (self.rank, 1) if self.settings.compile else (0, self.processes)
        seed_draws(self.device, self.settings.seed, self.step, own)
        batch = self.batches.of(self.step, self.rank)
        draws = partial(draws_of_share, self.settings.batch, self.rank, sharing)
        with draws():
            batch = batch if self.augment is None else self.augment(batch)
        losses = {}
        for group in self.model.update_schedule(self.step, self.settings.steps):
            optimiser = self.optimisers[group]
            for options in optimiser.param_groups:
                options["lr"] = self.settings.rate(self.step, group)
            with draws():
                losses[group] = self._gradient_of(group)(batch)
            norm = self.accelerator.clip_grad_norm_(self.groups[group], self.settings.grad_clip or math.inf)
            optimiser.step()
        self._update_average()
        if self.notes_steps and self.step < self.noted:
            size = sum(value.double().square().sum() for value in self.average.values()).sqrt()
            self.first_steps.append([*map(float, losses.values()), float(norm), float(size)])
        return losses, norm

    def _gradient_of(self, group: str) -> Callable[[Batch], Tensor]:
        gradient, key = partial(self._gradient, group), (group, self.model.branch)
        if not self.records:
            return gradient
        if key not in self.recorded:
            self.recorded[key] = Recorded(gradient, self.groups[group])
        return self.recorded[key]

    def _gradient(self, group: str, batch: Batch) -> Tensor:
        """The loss of a group of parameters, and their gradient, left in them."""
        self.optimisers[group].zero_grad(set_to_none=True)
        # Not Accelerate's own mixed precision, which is fixed for a whole process; bf16 needs no loss scaling.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            loss = self.wrapped(batch, group)
        self.accelerator.backward(loss)
        return loss.detach()

    @torch.no_grad()
    def _update_average(self) -> None:
        current = self.model.state_dict()
        floating = [name for name, value in current.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in floating], [current[n] for n in floating],
                             1 - self.settings.decay(self.step))
        for name in current.keys() - set(floating):
            self.average[name].copy_(current[name])

    def _log(self, losses: dict[str, Tensor], norm: Tensor) -> None:
        if self.processes > 1:
            losses = self.accelerator.reduce(losses, "mean")
        before = self.rows[-1] if self.rows else {"images": 0, "seconds": 0.0}
        images = self.step * self.settings.batch
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
        seed_draws(self.device, self.settings.seed, -2)
        first, n, size = next(iter(self.groups)), len(next(iter(self.validation.values()))), 32
        total = 0.0
        for start in range(0, n, size):
            part = {k: v[start:start + size] for k, v in self.validation.items()}
            total += float(self.model.loss(part, first)) * len(next(iter(part.values())))
        self.model.load_state_dict(current)
        self.model.train()
        return total / n

    def _save(self, name: str) -> None:
        if not self.accelerator.is_main_process:
            return
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for group, optimiser in self.optimisers.items():
            tensors |= optimiser_tensors(group, optimiser)
        write_tensors(self.folder / name, tensors, self._note() | {"rows": self.rows})

    def _note(self) -> dict:
        return {"identity": self.identity, "settings": asdict(self.settings), "step": self.step, "seconds": self.seconds,
                "first_steps": self.first_steps, "device": " + ".join(dict.fromkeys([*self.before, device_name(self.device)]))}

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
        self.step, self.seconds, self.rows, self.first_steps = (
            note[name] for name in ("step", "seconds", "rows", "first_steps"))
        self.before = note.get("device", "cpu").split(" + ")

    def _finish(self) -> pd.DataFrame:
        kept = halved(self.average)
        self.model.load_state_dict(kept)  # what is sampled now is what will be loaded later
        self.model.eval()
        log = pd.DataFrame(self.rows)
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            log.to_csv(self.folder / "log.csv", index=False, quoting=csv.QUOTE_MINIMAL)
            write_tensors(self.folder / "weights.safetensors", kept, self._note())
            (self.folder / "checkpoint.safetensors").unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        return log
