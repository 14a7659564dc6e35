"""The published results of the papers as settings that run, and their reproduction.

Imports `detection` and what is below it.
"""

from locallearn.recipes.catalogue import (
    find as find,
    matching as matching,
    recipes as recipes,
    rows_of as rows_of,
    tables as tables,
)
from locallearn.recipes.recipe import Published as Published, Quantity as Quantity, Recipe as Recipe
