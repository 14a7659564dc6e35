"""Kinds of chart: plain data, drawn for print by matplotlib and for the page by plotly.

Imports `_figures` and `cost`.
"""
