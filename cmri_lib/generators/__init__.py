"""Generators: an objective and a sampler around a network. `systems` is the register."""
