"""Measures: ``measure(real, synthetic)``, each with its floor, its ceiling, its n and an interval over patients."""
