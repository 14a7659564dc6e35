"""Figures for print: one look for all of them. Imports `_utils` only."""
