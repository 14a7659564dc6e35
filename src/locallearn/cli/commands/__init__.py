"""The commands, one file each: `parser()` and `run(config)`."""
