"""Order- and connectivity-agnostic training of a MADE (Germain et al. 2015, sections 4.2 and 6)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from flows.bijections.autoregressive.masked import (
    context_weights,
    made_masks,
    random_degrees,
    run_masked,
)
from flows.bijections.base import Batch, Bijection, Given, Mapped, PerRow
from flows.bijections.linear import initial_linear
from flows.bijections.observed import Observed, refuse_mask
from flows.bijections.transformers import Transformer
from flows.errors import FlowError
from flows.specs.costs import Conditioner


class MaskEnsemble(Bijection):
    """Mixture p(x) = 1/M sum_m p_m(x) of M masked networks that share their weights.

    Each has its own order of the features and degrees of the hidden units, drawn uniformly.
    Training cycles through the masks, one a batch; in evaluation the *probabilities* are
    averaged. The density is a mixture, so data have no noise. The forward direction draws the
    mask from the first number of the noise: the uniform number behind it, times M, has the mask
    as its whole part, and its fraction is uniform again.

    With `mask_weights` each layer is h = g(b + (W * M) x + (U * M) 1), U a second matrix of the
    shape of W (Germain et al. 2015, on connectivity-agnostic training): a unit knows which of its
    connections a mask M leaves. Under one mask that is a bias. U starts at 0, where all masks have
    the same biases. Here U is divided by the square root of its number of columns: otherwise the
    sum, of hundreds of numbers, takes steps hundreds of times as long as those of any other bias,
    and gradient descent diverges.
    """

    has_noise = False
    own_density = True
    orders: Tensor
    turn: Tensor

    def __init__(
        self,
        dim: int,
        conditioner: Conditioner,
        transformer: Transformer,
        *,
        masks: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.context_dim = conditioner.context_dim
        self.conditioner = conditioner
        self.transformer = transformer
        widths = [len(layer) for layer in conditioner.degrees(dim, transformer.outputs)]
        seen = [*widths[:-1], widths[-1] + (dim if conditioner.is_direct(dim) else 0)]
        pairs = [
            initial_linear(below, above, generator)
            for below, above in zip(seen, [*widths[1:], transformer.outputs * dim], strict=True)
        ]
        self.weights = nn.ParameterList(weight for weight, _ in pairs)
        self.biases = nn.ParameterList(bias for _, bias in pairs)
        self.mask_weights: nn.ParameterList | None = None
        if conditioner.mask_weights:
            self.mask_weights = nn.ParameterList(torch.zeros_like(w) for w in self.weights)
        self.context_weight = context_weights(conditioner, transformer.outputs, generator)
        orders = [torch.randperm(dim, generator=generator) for _ in range(masks)]
        self.register_buffer("orders", torch.stack(orders))
        self.hidden_names = [f"degrees_{layer}" for layer in range(1, len(widths))]
        for name, width in zip(self.hidden_names, widths[1:], strict=True):
            drawn = [
                random_degrees(
                    width, dim, lowest=1 if self.context_dim == 0 else 0, generator=generator
                )
                for _ in range(masks)
            ]
            self.register_buffer(name, torch.stack(drawn))
        # Number of training batches so far: resuming continues with the right mask.
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))

    @property
    def masks(self) -> int:
        """Number of masks."""
        return len(self.orders)

    def inverse(self, x: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        raise FlowError("a mixture over masks has no noise that its rows could be mapped to")

    def forward(self, u: Batch, context: Given = None, observed: Observed = None) -> Mapped:
        refuse_mask(observed)
        chosen, u = choose_mask(u, self.masks)
        x, log_det = torch.empty_like(u), u.new_empty(len(u))
        for mask in range(self.masks):
            rows = chosen == mask
            given = None if context is None else context[rows]
            x[rows], log_det[rows] = self._member_forward(u[rows], given, mask)
        return x, log_det

    def log_density(self, x: Batch, context: Given = None, observed: Observed = None) -> PerRow:
        refuse_mask(observed)
        if self.training:
            turn = int(self.turn) % self.masks
            self.turn += 1
            return self._member_density(x, context, turn)
        scores = [self._member_density(x, context, mask) for mask in range(self.masks)]
        return torch.logsumexp(torch.stack(scores), dim=0) - math.log(self.masks)

    def degrees(self, mask: int) -> list[Tensor]:
        """Return the degrees of the inputs, in the data's order, and of each hidden layer."""
        inputs = torch.argsort(self.orders[mask]) + 1
        return [inputs, *(self.get_buffer(name)[mask] for name in self.hidden_names)]

    def _masked(self, mask: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return weights and biases under a mask."""
        direct = self.conditioner.is_direct(self.dim)
        drawn = made_masks(self.degrees(mask), self.transformer.outputs, direct=direct)
        masks = [wanted.to(weight) for weight, wanted in zip(self.weights, drawn, strict=True)]
        weights = [weight * wanted for weight, wanted in zip(self.weights, masks, strict=True)]
        biases = list(self.biases)
        if self.mask_weights is not None:
            biases = [
                bias + (known * wanted).sum(dim=1) * known.shape[1] ** -0.5
                for bias, known, wanted in zip(biases, self.mask_weights, masks, strict=True)
            ]
        return weights, biases

    def parameters_of(
        self, x: Tensor, context: Tensor | None, mask: int
    ) -> Float[Tensor, "outputs batch dim"]:
        """Return the parameters of each conditional under a mask."""
        return self._run(x, context, self._masked(mask))

    def _run(
        self, x: Tensor, context: Tensor | None, network: tuple[list[Tensor], list[Tensor]]
    ) -> Float[Tensor, "outputs batch dim"]:
        if (self.context_weight is None) != (context is None):
            raise FlowError("a conditional density, and no other, needs a context")
        first = None
        if context is not None and self.context_weight is not None:
            first = F.linear(context, self.context_weight)
        out = run_masked(x, *network, activation=self.conditioner.activation, first=first)
        return out.view(x.shape[0], self.transformer.outputs, self.dim).movedim(1, 0)

    def _member_density(self, x: Tensor, context: Tensor | None, mask: int) -> Tensor:
        return self.transformer.log_density(x, self.parameters_of(x, context, mask)).sum(dim=1)

    def _member_forward(
        self, u: Tensor, context: Tensor | None, mask: int
    ) -> tuple[Tensor, Tensor]:
        """Map noise to data feature by feature, in the mask's order, one pass each."""
        x = torch.zeros_like(u)
        total = u.new_zeros(u.shape[0])
        network = self._masked(mask)
        for place, feature in enumerate(self.orders[mask].tolist()):
            parameters = self._run(x, context, network)[:, :, feature]
            column, log_det = self.transformer.forward(u[:, place], parameters)
            x = torch.cat([x[:, :feature], column[:, None], x[:, feature + 1 :]], dim=1)
            total = total + log_det
        return x, total


def choose_mask(u: Batch, masks: int) -> tuple[Int[Tensor, " batch"], Batch]:
    """Return the mask of each row, and the remaining noise: standard Gaussian again."""
    spread = torch.special.ndtr(u[:, 0].double()) * masks
    chosen = spread.floor().clamp(0, masks - 1)
    edge = torch.finfo(torch.float64).eps
    left = torch.special.ndtri((spread - chosen).clamp(edge, 1 - edge))
    return chosen.long(), torch.cat([left.to(u.dtype)[:, None], u[:, 1:]], dim=1)
