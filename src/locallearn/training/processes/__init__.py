"""The processes of a run: who they are, what they agree on, and who notices when one is gone. Imports `parallel`."""
