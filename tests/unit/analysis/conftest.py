"""The runs that all tests of the package share."""

from analysed_runs import runs as runs, trained as trained
