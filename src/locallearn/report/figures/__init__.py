"""The papers' figures, as charts: one file for each part of the page."""
