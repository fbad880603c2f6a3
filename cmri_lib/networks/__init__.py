"""Networks, and the ways a condition enters them. They know tensors, not objectives."""
