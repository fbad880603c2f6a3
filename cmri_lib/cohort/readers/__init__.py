"""Readers: published layouts of files → `Case`."""
