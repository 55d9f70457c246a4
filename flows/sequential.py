"""Sampling from a masked autoregressive layer, each hidden unit computed once.

Output i needs the hidden units of degree below i, and those of degree i become known with x_i. So
the units, which stand in the order of their degrees, are computed in one sweep over the features:
the arithmetic of one pass through the network, not of `dim` passes. Features are taken in blocks:
one product brings in what finished features contribute to a whole block, and small products do
the rest inside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from flows.masks import units_known

BLOCK_SMALL, BLOCK_LARGE, LARGE_DIM = 16, 32, 256
# Batch sizes whose work spaces are kept.
KEPT_SIZES = 8


class SequentialSampler:
    """x_i = shift(x_<i) + u_i exp(log_scale(x_<i)), feature by feature.

    It works on features first, `(dim, batch)`, without gradients. Threads may share it.
    """

    def __init__(
        self,
        weights: list[Tensor],
        biases: list[Tensor],
        *,
        activation_: Callable[[Tensor], Tensor],
    ) -> None:
        """Cuts a masked network, its features in natural order, into products.

        Args:
            weights: of the layers, masked; the rows of the last are all shifts, then all log
                scales.
            biases: of the layers.
            activation_: between the layers, in place.
        """
        dim = len(biases[-1]) // 2
        # Shift and log scale of a feature side by side: one product gives both.
        paired = torch.arange(2 * dim, device=biases[-1].device).view(2, dim).t().flatten()
        self._weights = [*weights[:-1], weights[-1][paired]]
        self._biases = [bias[:, None] for bias in [*biases[:-1], biases[-1][paired]]]
        self._widths = [dim, *(len(weight) for weight in weights[:-1]), 2 * dim]
        # known[layer][i]: how many of its units are known with the first i features. Outputs
        # are counted with the features that they give.
        hidden = [units_known(width, dim) for width in self._widths[1:-1]]
        self._known = [list(range(dim + 1)), *hidden, list(range(0, 2 * dim + 1, 2))]
        self._activation_ = activation_
        size = BLOCK_LARGE if dim >= LARGE_DIM else BLOCK_SMALL
        self._blocks = [
            self._block(start, end) for start, end in pairwise([*range(0, dim, size), dim])
        ]
        self._plans: dict[int, list[_Plan]] = {}

    def sample(
        self, u: Float[Tensor, "dim batch"]
    ) -> tuple[Float[Tensor, "dim batch"], Float[Tensor, "dim batch"]]:
        """Data from noise, and the log scales, whose sum over features is log|det dx/du|."""
        if len(self._plans) > KEPT_SIZES:
            self._plans.clear()
        free = self._plans.setdefault(u.shape[1], [])
        try:
            plan = free.pop()  # off the list, it is this thread's alone
        except IndexError:
            layers = [u.new_empty(width, u.shape[1]) for width in self._widths]
            plan = _Plan(layers, self._blocks)
        plan.run(u, self._activation_)
        x, log_scale = plan.layers[0].clone(), plan.layers[-1][1::2].clone()
        free.append(plan)
        return x, log_scale

    def tensors(self) -> list[Tensor]:
        """Everything that takes memory between calls, work space apart."""
        return [*self._weights, *self._biases]

    def _block(self, start: int, end: int) -> "_Block":
        last = len(self._weights)
        outer = [
            self._product(layer, rows=(start, end), columns=(0, start), bias=True)
            for layer in range(1, last + 1)
        ]
        features = [
            _Feature(
                i,
                self._product(last, rows=(i, i + 1), columns=(start, i)),
                [
                    self._product(layer, rows=(i, i + 1), columns=(start, i + 1))
                    for layer in range(1, last)
                ],
            )
            for i in range(start, end)
        ]
        return _Block(outer, features)

    def _product(
        self, layer: int, *, rows: tuple[int, int], columns: tuple[int, int], bias: bool = False
    ) -> "_Product":
        """The part of a layer between two ranges of features."""
        above, below = self._known[layer], self._known[layer - 1]
        target = slice(above[rows[0]], above[rows[1]])
        source = slice(below[columns[0]], below[columns[1]])
        return _Product(
            layer,
            target,
            source,
            self._weights[layer - 1][target, source],
            self._biases[layer - 1][target] if bias else None,
        )


@dataclass(frozen=True)
class _Product:
    """layer[rows] = bias + weight @ below[columns]; without a bias it adds to what is there."""

    layer: int
    rows: slice
    columns: slice
    weight: Tensor
    bias: Tensor | None

    def bound(self, layers: list[Tensor]) -> "_Bound":
        """The product with the work space's own views."""
        source = layers[self.layer - 1][self.columns]
        return layers[self.layer][self.rows], self.bias, self.weight, source


_Bound = tuple[Tensor, Tensor | None, Tensor, Tensor]


@dataclass(frozen=True)
class _Feature:
    """What a feature still needs before it is known, and what it makes known."""

    index: int
    before: _Product
    after: list[_Product]


@dataclass(frozen=True)
class _Block:
    """A range of features."""

    outer: list[_Product]
    features: list[_Feature]


class _Plan:
    """A work space for one batch size, with every view into it made beforehand."""

    def __init__(self, layers: list[Tensor], blocks: list[_Block]) -> None:
        self.layers = layers
        self._blocks = [
            (
                [product.bound(layers) for product in block.outer if _has_rows(product)],
                [self._feature(feature) for feature in block.features],
            )
            for block in blocks
        ]

    def run(self, u: Tensor, activation_: Callable[[Tensor], Tensor]) -> None:
        """Fills the layers."""
        noise = u.unbind(0)
        addmm, addcmul = torch.addmm, torch.addcmul
        for outer, features in self._blocks:
            for target, bias, weight, source in outer:
                if bias is not None:
                    addmm(bias, weight, source, out=target)
            for i, before, (shift, log_scale, x), after in features:
                for target, _, weight, source in before:
                    target.addmm_(weight, source)
                addcmul(shift, noise[i], log_scale.exp(), out=x)
                for target, _, weight, source in after:
                    activation_(target.addmm_(weight, source))

    def _feature(
        self, feature: _Feature
    ) -> tuple[int, list[_Bound], tuple[Tensor, Tensor, Tensor], list[_Bound]]:
        i, out = feature.index, self.layers[-1]
        before, after = feature.before, [p for p in feature.after if _has_rows(p)]
        return (
            i,
            [before.bound(self.layers)] if _has_columns(before) else [],
            (out[2 * i], out[2 * i + 1], self.layers[0][i]),
            [product.bound(self.layers) for product in after],
        )


def _has_rows(product: _Product) -> bool:
    return product.weight.shape[0] > 0


def _has_columns(product: _Product) -> bool:
    return product.weight.shape[1] > 0
