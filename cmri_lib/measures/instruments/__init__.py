"""Frozen networks and feature spaces that measures look through."""
