"""The simulator: hearts with known truth, scanned by four simulated vendors."""
