"""Layers and losses that any network could use. Imports `_torch` and `_utils`."""
