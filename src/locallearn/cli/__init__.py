"""The command line: options, tables, progress and Ctrl-C. It may import every other package."""

from locallearn.cli.main import main as main
