"""Preprocessing: `Case` → `Slices`."""
