"""What the backward pass recomputes instead of storing it. Imports `_nn`, `_torch` and `_utils`."""
