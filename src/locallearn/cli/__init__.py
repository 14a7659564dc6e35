"""The command line: options, progress, tables and Ctrl-C. One file a command; may import every other package."""

from locallearn.cli.main import main as main
