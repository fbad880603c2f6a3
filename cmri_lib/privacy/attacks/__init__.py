"""Membership attacks, by what they look at: errors, likelihood, critic, shadow runs, samples alone."""
