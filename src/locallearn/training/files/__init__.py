"""The files of a run: settings, metrics, checkpoints, and the lock on their folder."""
