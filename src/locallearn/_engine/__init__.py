"""One training step of any list of objectives. Imports `_objectives`, `_recompute` and what is below them."""
