"""`python -m locallearn`."""

from locallearn.cli.main import command

command()
