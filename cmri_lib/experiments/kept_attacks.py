"""Attacks whose scores are kept on disk: an audit that was cut short, or is run again, asks a network about a slice once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from cmri_lib.cohort.slices import Slices
from cmri_lib.experiments.banks import generator_digest
from cmri_lib.privacy.attack import Attack, Remembered, Target
from cmri_lib.training.fingerprint import code_digest, digest


class Kept(Remembered):
    """A remembered attack on weights whose scores outlive the process. They lie under a digest of all that they depend on:
    weights and code of the target, settings and code of the attack.

    Args:
        attack: one that asks the generator, and not its samples.
        folder: where the scores are kept.
    """

    def __init__(self, attack: Attack, folder: Path):
        super().__init__(attack)
        self.folder = folder
        self._files: dict[str, Path] = {}

    def scores(self, target: Target, slices: Slices) -> pd.DataFrame:
        if target.name not in self._files:
            self._files[target.name] = self._file(target)
            self._recall(target.name)
        before = len(self._known)
        found = super().scores(target, slices)
        if len(self._known) > before:
            self._keep(target.name)
        return found

    def _file(self, target: Target) -> Path:
        parts = repr(self.attack), code_digest(*_layers(self.attack)), generator_digest(target.generator)
        return self.folder / f"{self.name}-{digest(part.encode() for part in parts)}.csv"

    def _recall(self, name: str) -> None:
        if self._files[name].exists():
            table = pd.read_csv(self._files[name], index_col=0, float_precision="round_trip")
            self._settings = list(table)
            self._known.update({(name, bytes.fromhex(key)): row for key, row in zip(table.index, table.to_numpy(float))})

    def _keep(self, name: str) -> None:
        rows = {key.hex(): values for (target, key), values in self._known.items() if target == name}
        self.folder.mkdir(parents=True, exist_ok=True)
        half = self._files[name].with_suffix(".partial")
        pd.DataFrame.from_dict(rows, orient="index", columns=self._settings).to_csv(half)
        half.replace(self._files[name])  # there complete, or as it was


def _layers(attack: Attack) -> Iterator[Attack]:
    """The attack, and those that it is made of."""
    yield attack
    if inner := getattr(attack, "attack", None):
        yield from _layers(inner)
