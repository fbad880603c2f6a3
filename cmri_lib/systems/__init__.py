"""The review's systems, one register."""
