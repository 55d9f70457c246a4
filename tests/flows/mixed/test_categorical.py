"""The categorical MADE of two levels beside the Bernoulli MADE."""

import torch

from flows.bijections.autoregressive.masked import MaskedLinear
from flows.families.made import MadeSpec
from flows.mixed.categorical import CategoricalMade, one_hot


def test_two_levels_are_the_case_of_the_bernoulli_made() -> None:
    dim, hidden = 9, [24, 17]
    generator = torch.Generator().manual_seed(0)
    bernoulli = MadeSpec(conditional="bernoulli", hidden=hidden).build(dim, generator)
    made = CategoricalMade(
        [2] * dim, hidden=hidden, activation="tanh", context_dim=0, generator=generator
    )
    first, *_, last = made_layers = layers_of(made)
    with torch.no_grad():
        for layer, source in zip(made_layers, layers_of(bernoulli), strict=True):
            weight = source.weight * source.mask
            if layer is first:  # the input of a 1 is that of the level 1
                layer.weight.zero_()[:, 1::2] = weight
                layer.bias.copy_(source.bias)
            elif layer is last:  # and its logit is that of the level 1 against the level 0
                layer.weight.zero_()[1::2] = weight
                layer.bias.zero_()[1::2] = source.bias
            else:
                layer.weight.copy_(weight)
                layer.bias.copy_(source.bias)
    rows = torch.randint(2, (64, dim), generator=generator).float()
    inputs = one_hot(rows, made.sizes, made.starts, made.slots)
    torch.testing.assert_close(
        made.log_prob(rows, inputs).sum(dim=1), bernoulli.log_density(rows), rtol=1e-5, atol=1e-5
    )


def layers_of(module: torch.nn.Module) -> list[MaskedLinear]:
    return [layer for layer in module.modules() if isinstance(layer, MaskedLinear)]
