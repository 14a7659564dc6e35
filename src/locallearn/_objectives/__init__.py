"""Objectives over local modules: spans, sites and auxiliary networks. Imports `_chain` and what is below it."""
