"""What a step will need, found on fake tensors, and partitions chosen by it.

Imports `_engine`, `rules` and what is below them.
"""
