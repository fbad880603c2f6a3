"""Fidelity: distances, support, spectrum, diversity, two-sample tests."""
