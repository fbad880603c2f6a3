"""Utility: what samples are worth to a downstream task."""
