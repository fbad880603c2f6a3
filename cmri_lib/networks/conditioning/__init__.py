"""Conditioning methods: how a mask, a vendor or a number enters a network."""
