"""One run of the study: its parameters, and where things lie.

Notebooks begin with ``study = open_study(profile, dataset)`` and read every number from ``study.params``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from cmri_lib.config.parameters import Parameters
from cmri_lib.cohort.places import project_root
from cmri_lib.config.reading import read_parameters


@dataclass(frozen=True)
class Study:
    """A cohort under a profile.

    Attributes:
        root: the folder of ``params.yaml``.
        params: its values for this profile and cohort.
    """

    root: Path
    params: Parameters

    @property
    def profile(self) -> str:
        return self.params.profile

    @property
    def dataset(self) -> str:
        return self.params.dataset

    @property
    def seed(self) -> int:
        return self.params.seed

    @property
    def data(self) -> Path:
        """The raw cohort."""
        return self.root / "data" / self.dataset

    def work(self, name: str) -> Path:
        """Where intermediate results of this run go: preprocessed slices, trained weights, sample banks."""
        return self.root / "work" / self.dataset / self.profile / name

    @property
    def results(self) -> Path:
        return self.root / "results" / self.dataset

    @property
    def figures(self) -> Path:
        return self.root / "figures" / self.dataset


def open_study(profile: str | None = None, dataset: str | None = None, root: Path | None = None) -> Study:
    """The study as ``params.yaml`` describes it; arguments that are given override it.

    Raises:
        ParameterError: on any fault of ``params.yaml``, before anything is computed.
    """
    root = root or project_root()
    params = read_parameters(root / "params.yaml", profile, dataset)
    # Apple's GPUs know no numbers of 64 bits, which levels of noise and likelihoods are computed with.
    if params.device == "cpu" or torch.backends.mps.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"  # read by Accelerate when it first looks for a device
    return Study(root, params)
