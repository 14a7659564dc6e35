"""The command line: options, progress, tables and Ctrl-C. One file a command; may import every other package."""

from locallearn.cli.main import command as command, main as main
