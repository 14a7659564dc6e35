"""A backbone as layers in order, and its local modules. Imports `_fx` and what is below it."""
