"""Files, names and sentences. Knows nothing of PyTorch and imports no other package."""
