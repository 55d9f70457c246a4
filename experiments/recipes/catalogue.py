"""All recipes by name."""

from experiments.recipes.binary import binary
from experiments.recipes.continuous import continuous, pictures
from experiments.recipes.recipe import Recipe
from experiments.recipes.variational import variational

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for group in (binary(), continuous(), pictures(), variational())
    for recipe in group
}
