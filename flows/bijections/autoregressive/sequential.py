"""Sampling from a masked autoregressive layer, each hidden unit computed once.

Output i needs the hidden units of degree below i, and those of degree i become known with x_i. So
the units, which stand in the order of their degrees, are computed in one sweep over the features:
the arithmetic of one pass through the network, not of `dim` passes. Features are taken in blocks:
one product brings in what finished features contribute to a whole block, and small products do
the rest inside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from flows.bijections.folding import Columns
from flows.bijections.observed import ObservedColumns
from flows.bijections.transformers import Affine, Transformer

BLOCK_SMALL, BLOCK_LARGE, LARGE_DIM = 16, 32, 256
# Number of work spaces that a layer keeps, each for one batch size, and the largest size that is
# kept: creating the views into a larger one takes little of the time that its rows take.
KEPT_PLANS, PLAN_BYTES = 2, 2**20
# Maximum number of rows of a batch of samples.
MOST_ROWS = 1024


class SequentialSampler:
    """Sampler of x_i = T(u_i; p_i(x_<i)), feature by feature, for a transformer T.

    It works on features first, `(dim, batch)`, without gradients. It is thread-safe.
    """

    def __init__(
        self,
        weights: list[Tensor],
        biases: list[Tensor],
        *,
        degrees: Sequence[Tensor],
        activation_: Callable[[Tensor], Tensor],
        transformer: Transformer | None = None,
    ) -> None:
        """Cut a masked network, its features in natural order, into products.

        Args:
            weights: Masked weights of the layers; the rows of the last are the first parameters of
                all features, then the second ones, and so on; its columns may end with direct
                connections.
            biases: Biases of the layers.
            degrees: Degrees of the inputs and the hidden layers, in ascending order.
            activation_: In-place activation between the layers.
            transformer: Elementwise map; None stands for the affine one.
        """
        self._transformer = transformer or Affine()
        outputs, dim = self._transformer.outputs, len(degrees[0])
        # The parameters of a feature side by side: one product gives all of them.
        together = torch.arange(outputs * dim, device=biases[-1].device).view(outputs, dim)
        order = together.t().flatten()
        self._dim, self._outputs = dim, outputs
        last, self._direct = split_direct(weights[-1][order], degrees)
        self._weights = [*weights[:-1], last]
        self._biases = [bias[:, None] for bias in [*biases[:-1], biases[-1][order]]]
        self._widths = [dim, *(len(weight) for weight in weights[:-1]), outputs * dim]
        # known[layer][i]: number of its units that are known with the first i features. Outputs are
        # counted with the features that they give.
        hidden = [_units_known(layer, dim) for layer in degrees[1:]]
        given = list(range(0, outputs * dim + 1, outputs))
        self._known = [list(range(dim + 1)), *hidden, given]
        self._activation_ = activation_
        size = BLOCK_LARGE if dim >= LARGE_DIM else BLOCK_SMALL
        # Units that a context alone makes known.
        first = [self._product(layer, (0, known[0]), (None, 0)) for layer, known in self._numbered]
        self._first = [product for product in first if _has_rows(product)]
        self._blocks = [
            self._block(start, end) for start, end in pairwise([*range(0, dim, size), dim])
        ]
        self._plans: dict[int, _Plan] = {}

    def sample(
        self,
        u: Columns,
        added: Float[Tensor, "width batch"] | None = None,
        observed: ObservedColumns = None,
    ) -> tuple[Columns, Columns]:
        """Return data from noise, and log dx/du of each feature.

        Args:
            u: Standard Gaussian noise.
            added: Contribution of a context to the first layer; given always or never.
            observed: Mask of the features.
        """
        # Off the list, the work space belongs to this thread alone.
        plan = self._plans.pop(u.shape[1], None) or self._plan(u, with_context=added is not None)
        if added is not None:
            torch.add(added, self._biases[0], out=plan.first_bias)
        hidden = None if observed is None else (observed == 0).unbind(0)
        plan.run(u, self._activation_, self._transformer, hidden)
        if sum(layer.nbytes for layer in plan.layers) > PLAN_BYTES:
            return plan.layers[0], plan.log_det
        x, log_det = plan.layers[0].clone(), plan.log_det.clone()
        if len(self._plans) >= KEPT_PLANS:
            self._plans.clear()
        self._plans[u.shape[1]] = plan
        return x, log_det

    def tensors(self) -> list[Tensor]:
        """Return the tensors that take memory between calls, without work spaces."""
        direct = [] if self._direct is None else [self._direct]
        return [*self._weights, *direct, *self._biases]

    @property
    def _numbered(self) -> list[tuple[int, list[int]]]:
        """Return the numbered hidden layers, each with its counts of known units."""
        return list(enumerate(self._known))[1:-1]

    def _plan(self, u: Tensor, *, with_context: bool) -> "_Plan":
        batch = u.shape[1]
        layers = [u.new_empty(width, batch) for width in self._widths]
        first_bias = u.new_empty(self._widths[1], batch) if with_context else self._biases[0]
        return _Plan(layers, first_bias, self)

    def _block(self, start: int, end: int) -> "_Block":
        last = len(self._weights)
        known = self._known
        outer = [
            self._product(layer, (known[layer][start], known[layer][end]), (None, start))
            for layer in range(1, last + 1)
        ]
        outer += self._direct_products((known[last][start], known[last][end]), (0, start))
        features = [
            _Feature(
                i,
                self._outputs_of(i, start),
                [
                    self._product(layer, (units[i], units[i + 1]), (start, i + 1))
                    for layer, units in self._numbered
                ],
            )
            for i in range(start, end)
        ]
        return _Block(outer, features)

    def _outputs_of(self, i: int, start: int) -> list["_Product"]:
        """Return the contributions of features `start` to i - 1 to the parameters of feature i."""
        last = len(self._weights)
        rows = self._known[last][i], self._known[last][i + 1]
        hidden = self._product(last, rows, (start, i))
        return [hidden, *self._direct_products(rows, (start, i))]

    def _direct_products(
        self, rows: tuple[int, int], features: tuple[int, int]
    ) -> list["_Product"]:
        """Return the contributions of direct connections from some features to some outputs."""
        if self._direct is None:
            return []
        target, source = slice(*rows), slice(*features)
        weight = self._direct[target, source]
        return [_Product(len(self._weights), target, source, weight, None, below=0)]

    def _product(
        self, layer: int, rows: tuple[int, int], features: tuple[int | None, int]
    ) -> "_Product":
        """Return a product for some units of a layer, from units below known between two features.

        If the lower bound is None, that is, for all that is known so far, it starts from the bias;
        otherwise it adds to the present values.
        """
        below = self._known[layer - 1]
        begin = 0 if features[0] is None else below[features[0]]
        target, source = slice(*rows), slice(begin, below[features[1]])
        weight = self._weights[layer - 1][target, source]
        bias = self._biases[layer - 1] if features[0] is None else None
        return _Product(layer, target, source, weight, bias, below=layer - 1)


@dataclass(frozen=True)
class _Product:
    """Product layer[rows] = bias[rows] + weight @ below[columns], or added without a bias."""

    layer: int
    rows: slice
    columns: slice
    weight: Tensor
    bias: Tensor | None
    below: int

    def bound(self, layers: list[Tensor], first_bias: Tensor) -> "_Bound":
        """Return the product with the views of the work space."""
        bias = first_bias if self.bias is not None and self.layer == 1 else self.bias
        source = layers[self.below][self.columns]
        target = layers[self.layer][self.rows]
        return target, None if bias is None else bias[self.rows], self.weight, source


_Bound = tuple[Tensor, Tensor | None, Tensor, Tensor]


@dataclass(frozen=True)
class _Feature:
    """Computation of one feature: products before it is known, and products that it feeds."""

    index: int
    before: list[_Product]
    after: list[_Product]


@dataclass(frozen=True)
class _Block:
    """Range of features that are computed together."""

    outer: list[_Product]
    features: list[_Feature]


class _Plan:
    """Work space for one batch size, with all of its views made beforehand."""

    def __init__(
        self, layers: list[Tensor], first_bias: Tensor, sampler: SequentialSampler
    ) -> None:
        self.layers = layers
        self.first_bias = first_bias
        self.log_det = torch.empty_like(layers[0])
        self._outputs = sampler._outputs
        self._first = [self._bound(product) for product in sampler._first]
        self._blocks = [
            (
                [self._bound(product) for product in block.outer if _adds(product)],
                [self._feature(feature) for feature in block.features],
            )
            for block in sampler._blocks
        ]

    def run(
        self,
        u: Tensor,
        activation_: Callable[[Tensor], Tensor],
        transformer: Transformer,
        hidden: Sequence[Tensor] | None,
    ) -> None:
        """Fill the layers of the work space, with 0 for features that are not observed."""
        noise = u.unbind(0)
        addmm = torch.addmm
        for target, bias, weight, source in self._first:
            assert bias is not None  # noqa: S101  as they were made
            activation_(addmm(bias, weight, source, out=target))
        for outer, features in self._blocks:
            for target, bias, weight, source in outer:
                if bias is None:
                    target.addmm_(weight, source)
                else:
                    addmm(bias, weight, source, out=target)
            for i, before, (parameters, x, log_det), after in features:
                for target, _, weight, source in before:
                    target.addmm_(weight, source)
                transformer.forward_into(noise[i], parameters, x, log_det)
                _clear(hidden, i, x, log_det)
                for target, _, weight, source in after:
                    activation_(target.addmm_(weight, source))

    def _bound(self, product: _Product) -> _Bound:
        return product.bound(self.layers, self.first_bias)

    def _feature(
        self, feature: _Feature
    ) -> tuple[int, list[_Bound], tuple[Tensor, Tensor, Tensor], list[_Bound]]:
        i, out = feature.index, self.layers[-1]
        before = [product for product in feature.before if _has_columns(product)]
        after = [product for product in feature.after if _has_rows(product)]
        parameters = out[i * self._outputs : (i + 1) * self._outputs]
        return (
            i,
            [self._bound(product) for product in before],
            (parameters, self.layers[0][i], self.log_det[i]),
            [self._bound(product) for product in after],
        )


def _clear(hidden: Sequence[Tensor] | None, feature: int, *results: Tensor) -> None:
    """Set the results of a feature to 0 in the rows in which it is not observed."""
    if hidden is not None:
        for result in results:
            result.masked_fill_(hidden[feature], 0)


def _units_known(degrees: Int[Tensor, " width"], dim: int) -> list[int]:
    """Return how many units of a hidden layer have a degree of at most 0, 1, ..., dim."""
    known: list[int] = torch.searchsorted(degrees, torch.arange(dim + 1), right=True).tolist()
    return known


def split_direct(
    weight: Float[Tensor, "outputs_dim in_width"], degrees: Sequence[Tensor]
) -> tuple[Float[Tensor, "outputs_dim width"], Float[Tensor, "outputs_dim dim"] | None]:
    """Return the last weights of a masked network without direct connections, and these, if any.

    Args:
        weight: Weight of the last layer.
        degrees: Degrees of the inputs and the hidden layers.
    """
    width = len(degrees[-1])
    if weight.shape[1] == width:
        return weight, None
    return weight[:, :width].contiguous(), weight[:, width:].contiguous()


def _adds(product: _Product) -> bool:
    """Return True if the product changes anything: with a bias, it always sets its rows."""
    return _has_rows(product) and (product.bias is not None or _has_columns(product))


def _has_rows(product: _Product) -> bool:
    return product.weight.shape[0] > 0


def _has_columns(product: _Product) -> bool:
    return product.weight.shape[1] > 0
