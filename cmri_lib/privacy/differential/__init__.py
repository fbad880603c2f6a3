"""Differential privacy by patient: the private training, what it spends, and how much of that an attacker can
prove."""
