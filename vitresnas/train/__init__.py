"""Training: one loop, recipes as functions, runs that can be killed and continued."""

from vitresnas.train.recipe import Recipe
from vitresnas.train.recipes import RECIPES, load_recipe

__all__ = ["RECIPES", "Recipe", "load_recipe"]
