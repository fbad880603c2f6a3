"""Membership attacks, by what they look at: the network's errors, a likelihood, a critic, shadow runs, samples alone."""
