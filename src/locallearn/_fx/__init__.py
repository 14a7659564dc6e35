"""Forward code as a graph, and the places where a single tensor passes. Imports `_nn`, `_torch` and `_utils`."""
