"""Private training by patient: DP-SGD (Abadi et al. 2016, arXiv 1607.00133) whose unit is a patient, not an
image.

Two training sets are neighbours if one has one patient more, with all of his or her slices. In each step

- every patient is drawn with probability q, independently (Poisson sampling);
- for each that is drawn, the gradient of the mean loss over a few of his or her slices is clipped to norm C;
- the sum of these gets Gaussian noise of standard deviation σ C, and is divided by the *expected* number of
  patients;
- Adam takes a step with it, also where nobody was drawn.

(McMahan et al. 2018, arXiv 1710.06963, for users in the place of patients.) What follows from the noisy
gradients alone costs no privacy: Adam's moments, the averaged weights, the log. It holds no loss, which would
be a look at the patients.

The loop is `training.loop`'s with another step: it resumes after a kill, and a finished training is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from cmri_lib.errors import DataError, ParameterError
from cmri_lib.training.batches import Batch, seed_draws
from cmri_lib.training.fingerprint import training_fingerprint
from cmri_lib.training.kept import train_unless_done
from cmri_lib.training.loop import Trainable, Training
from cmri_lib.training.settings import TrainSettings

#: The field of the data that says whose a row is: a code for each patient.
PATIENT = "patient"


@dataclass(frozen=True)
class Mechanism:
    """The subsampled Gaussian mechanism of one step.

    Attributes:
        rate: q, with which each patient is drawn.
        patients: expected number of patients in a step. Like the rate it is fixed before the data are seen.
        slices: of each patient that is drawn, at most.
        clip: C, norm of a patient's gradient at most.
        noise: σ, in units of C; 0 for no privacy.

    Raises:
        ParameterError: on a value out of range.
    """

    rate: float
    patients: float
    slices: int
    clip: float
    noise: float

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1 or min(self.patients, self.slices, self.clip) <= 0 or self.noise < 0:
            raise ParameterError(f"{self}", field="mechanism",
                                 remedy="give 0 < rate ≤ 1, positive sizes, noise ≥ 0")

    def draw(self, owners: Sequence[Tensor]) -> list[Tensor]:
        """The rows of each patient that is drawn, at most `slices` of them, by torch's global random state.
        `owners`: the rows of every patient."""
        drawn = torch.rand(len(owners)) < self.rate
        return [rows[torch.randperm(len(rows))[:self.slices]]
                for rows, here in zip(owners, drawn.tolist()) if here]

    def clipped_sum(self, model: Trainable, batches: Sequence[Batch]) -> list[Tensor]:
        """Σ g · min(1, C / ‖g‖) over patients, g the gradient of the model's loss on the patient's batch: a
        tensor for each parameter of the group that looks at patients. No patient adds a vector longer than C.

        Raises:
            DataError: if a gradient is not finite: clipping would not bound it.
        """
        group = private_group(model)
        parameters = model.parameter_groups()[group]
        total = [torch.zeros_like(p) for p in parameters]
        for batch in batches:
            gradient = torch.autograd.grad(model.loss(batch, group), parameters, materialize_grads=True)
            norm = float(_norm(gradient))
            if not norm < float("inf"):
                raise DataError(f"a patient's gradient has norm {norm}", field="gradient",
                                remedy="check the images for extreme values")
            torch._foreach_add_(total, list(gradient), alpha=min(1.0, self.clip / max(norm, 1e-12)))
        return total

    def gradient(self, model: Trainable, batches: Sequence[Batch]) -> list[Tensor]:
        """The noisy mean that the optimiser sees; of no batches, noise alone."""
        return [(t + self.noise * self.clip * torch.randn_like(t)) / self.patients
                for t in self.clipped_sum(model, batches)]


def train_privately(model: Trainable, data: Mapping[str, Tensor], settings: TrainSettings,
                    mechanism: Mechanism, folder: str | Path, *, source: Mapping[str, Tensor] | None = None,
                    checkpoint_seconds: float = 20.0) -> pd.DataFrame:
    """Train `model` on `data` with `mechanism`, or return at once if `folder` already holds this very
    training.

    Args:
        model: with one group of parameters that looks at the data, whose loss treats images apart; afterwards
            it holds the averaged weights of the last step. No step is chosen by its quality: choosing would
            be another look at the patients.
        data: named tensors of one length N, with `PATIENT` (N,) integer codes.
        settings: steps, learning rate, averaging and seed; the mechanism's own draws take the place of
            `batch`, its clipping that of `grad_clip`.
        folder, source: as in `training.train`.

    Returns:
        the log: as of `training.train`, without losses; `images` is their expected number.

    Raises:
        ParameterError: if the model has batch normalisation or a coupling of images, each of which would let
            one patient act on another's gradient, or several groups of parameters and does not say which of them
            looks at the data, or if several processes share the training.
        DataError: if rows have no patient, or a gradient is not finite.
    """
    refuse_mixing(model)
    if PATIENT not in data:
        raise DataError("nobody says whose the rows are", field=PATIENT,
                        remedy="give a code of the patient for every row")
    folder = Path(folder)
    identity = training_fingerprint(model, data if source is None else source, settings, mechanism)
    training = partial(_PrivateTraining, data=data, settings=settings, folder=folder, identity=identity,
                       augment=None, validation=None, checkpoint_seconds=checkpoint_seconds, mechanism=mechanism)
    return train_unless_done(model, folder, identity, training)


def refuse_mixing(model: Trainable) -> None:
    """Raise ParameterError if a patient's gradient would depend on other patients, or on more than one
    optimiser."""
    mixing = [name for name, part in model.named_modules() if isinstance(part, _BatchNorm)]
    if mixing:
        raise ParameterError(f"{mixing[0]} is a batch normalisation, which mixes patients", field="network",
                             remedy="use group or instance normalisation")
    if model.pool:
        raise ParameterError(f"images of a pool of {model.pool} are coupled", field="pool",
                             remedy="train privately with independent coupling")
    private_group(model)


def private_group(model: Trainable) -> str:
    """The group of parameters that looks at the data. Raises ParameterError if there are several, and the model does
    not say which."""
    groups = list(model.parameter_groups())
    if model.private_group in groups:
        return model.private_group
    if len(groups) != 1:
        raise ParameterError(f"{len(groups)} groups of parameters", field="system",
                             remedy="choose a model with one loss, such as a diffusion or a flow, or C18")
    return groups[0]


class _PrivateTraining(Training):
    """One private training under way."""

    def __init__(self, model: Trainable, *, mechanism: Mechanism, **options: object):
        super().__init__(model, **options)
        if self.accelerator.num_processes > 1:
            raise ParameterError(f"{self.accelerator.num_processes} processes", field="num_processes",
                                 remedy="launch a private training with one")
        data = {name: values.to(self.device) for name, values in options["data"].items()}
        codes = data.pop(PATIENT).cpu()
        self.mechanism, self.data = mechanism, data
        self.owners = [torch.nonzero(codes == code).flatten() for code in codes.unique()]
        # What a group that must not look at patients is given. If it looked, its loss would be no number.
        count = max(1, round(self.mechanism.patients)) * self.mechanism.slices
        self.nothing = {name: torch.full((count, *values.shape[1:]), float("nan"), device=self.device)
                        for name, values in data.items() if values.is_floating_point()}

    def _step(self) -> tuple[dict[str, Tensor], Tensor]:
        seed_draws(self.device, self.settings.seed, self.step, 0)
        batches = [{name: values[rows.to(self.device)] for name, values in self.data.items()}
                   for rows in self.mechanism.draw(self.owners)]
        looks = private_group(self.model)
        for group in self.model.update_schedule(self.step, self.settings.steps):
            optimiser = self.optimisers[group]
            for options in optimiser.param_groups:
                options["lr"] = self.settings.rate(self.step, group)
            optimiser.zero_grad(set_to_none=True)
            if group == looks:
                gradient = self.mechanism.gradient(self.model, batches)
                for parameter, value in zip(self.groups[group], gradient, strict=True):
                    parameter.grad = value
            else:
                self._blind_loss(group).backward()
            optimiser.step()
        self._update_average()
        norm = _norm(gradient)
        if self.notes_steps and self.step < self.noted:
            self.first_steps.append([float(norm), float(_norm(list(self.average.values())))])
        return {}, norm

    def _blind_loss(self, group: str) -> Tensor:
        """The loss of a group that does not look at patients."""
        loss = self.model.loss(self.nothing, group)
        if not torch.isfinite(loss):
            raise DataError(f"the loss of {group} without data is {float(loss)}", field="private_group",
                            remedy="of several groups of parameters only one may look at the data")
        return loss


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t.double()) for t in tensors]))
