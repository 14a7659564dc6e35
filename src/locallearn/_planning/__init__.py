"""The cost of a step, counted on fake tensors, and partitions chosen by cost.

Imports `_engine`, `rules` and what is below them.
"""
