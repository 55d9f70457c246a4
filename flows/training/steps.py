"""Training steps: compiled loops where a flow has them, autograd elsewhere."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from flows.engine.description import Singles
from flows.engine.training.program import UnsupportedError
from flows.engine.training.step import CompiledGradient
from flows.flow import Flow
from flows.training.optimiser import make_optimiser, moments_of, restore_moments
from flows.training.options import FitOptions
from flows.training.robust import bound_losses
from flows.training.state import copies

log = logging.getLogger(__name__)

# Multiplications of a step, forward, that the compiled loops of one core take 2 to 5 ms for with their
# gradients. PyTorch takes 2 to 4 ms to issue the operations of such a step alone.
MOST_ALONE = 2**26

Groups = Mapping[str, Mapping[str, Tensor]]


class Steps(ABC):
    """Steps of an optimiser along the gradient of the mean bounded loss, and the weights' average.

    Attributes:
        learning_rate: Length of a step.
    """

    learning_rate: float

    def take(self, rows: Tensor, number: int) -> Tensor | float:
        """Take a step; return the sum of the rows' log densities before it.

        Args:
            number: Number of the step since training began, counted from 1.
        """
        total = self.compute(rows)
        self.move(number)
        return total

    @abstractmethod
    def compute(self, rows: Tensor) -> Tensor | float:
        """Compute the gradient for rows of the model; return the sum of their log densities."""

    @abstractmethod
    def move(self, number: int) -> None:
        """Move the weights along the gradient, in the step of this number."""

    @abstractmethod
    def score(self, rows: Tensor) -> Tensor:
        """Return the log densities of rows of the model, whose flow is in evaluation mode."""

    @abstractmethod
    def settle(self, rows: Tensor) -> None:
        """Let batch norms hold the statistics of rows of the model, which pass as one batch."""

    @abstractmethod
    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the flow has the average of its weights, if there is one."""

    @abstractmethod
    def restart(self) -> None:
        """Forget the moments, and begin the average at the present weights."""

    @abstractmethod
    def tensors(self) -> Groups:
        """Return copies of the moments and of the average, as groups of a state."""

    @abstractmethod
    def restore(self, groups: Groups) -> None:
        """Restore both from `groups`."""


def choose_steps(flow: Flow, options: FitOptions, *, batch_size: int) -> Steps:
    """Return compiled steps if they apply, steps by autograd otherwise; one log line says why."""
    try:
        _check_compiled(flow, options, batch_size)
        return CompiledSteps(flow, options)
    except UnsupportedError as reason:
        log.info("autograd computes the gradients: %s", reason)
    return AutogradSteps(flow, options)


def one_core_suffices(parameters: int, batch_size: int) -> bool:
    """Return True for steps so small that one core is about as fast as any GPU or number of threads.

    It computes them in the time that PyTorch needs to issue their operations, for which a GPU waits.
    """
    return parameters * batch_size <= MOST_ALONE


def _check_compiled(flow: Flow, options: FitOptions, batch_size: int) -> None:
    """Check that compiled steps suit the options and the machine.

    Raises:
        UnsupportedError: They do not.
    """
    if flow.device.type != "cpu":
        raise UnsupportedError(f"the device is {flow.device.type}")
    if options.optimiser not in ("adam", "adamw"):
        raise UnsupportedError(f"the optimiser is {options.optimiser}")
    weights = sum(parameter.numel() for parameter in flow.parameters())
    if torch.get_num_threads() > 1 and not one_core_suffices(weights, batch_size):
        raise UnsupportedError("several threads serve so large a step better")


def _average_share(decay: float, step: int) -> float:
    """Return the share of the weights after a step, counted from 1, in their average.

    average <- d average + (1 - d) weights with d = min(decay, (1 + n)/(10 + n)) at step n (Polyak and
    Juditsky 1992): the first weights are soon forgotten.
    """
    return 1 - min(decay, (1 + step) / (10 + step))


class AutogradSteps(Steps):
    """Steps by autograd and PyTorch's optimisers: the reference."""

    def __init__(self, flow: Flow, options: FitOptions) -> None:
        self._flow, self._options = flow, options
        self._parameters = [part for part in flow.parameters() if part.requires_grad]
        self._weights = {} if options.weight_average is None else dict(flow.named_parameters())
        self._rounds = options.mixed_precision and flow.device.type == "cuda"
        self.learning_rate = options.learning_rate
        self.restart()

    def compute(self, rows: Tensor) -> Tensor:
        options = self._options
        self._optimiser.zero_grad()
        with _rounded_products() if self._rounds else nullcontext():
            scores = self.score(rows)
            losses, bound = -scores, options.row_loss_bound
            if bound is not None:
                losses = bound_losses(losses, bound)
            losses.mean().backward()  # type: ignore[no-untyped-call]  # torch's own
        return scores.detach().sum(dtype=torch.float64)

    @torch.no_grad()
    def move(self, number: int) -> None:
        norm, decay = self._options.max_gradient_norm, self._options.weight_average
        if norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, norm)
        self._optimiser.param_groups[0]["lr"] = self.learning_rate
        self._optimiser.step()
        if decay is not None:
            for name, weight in self._weights.items():
                self._average[name].lerp_(weight, _average_share(decay, number))

    def score(self, rows: Tensor) -> Tensor:
        return self._flow.log_prob_of_table(rows, space="model")

    @torch.no_grad()
    def settle(self, rows: Tensor) -> None:
        self._flow.train()
        self.score(rows)
        self._flow.eval()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        kept = copies(self._weights)
        self._set(self._average)
        try:
            yield
        finally:
            self._set(kept)

    @torch.no_grad()
    def _set(self, weights: Mapping[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(weights[name])

    def restart(self) -> None:
        self._optimiser = make_optimiser(
            self._parameters,
            self._options.optimiser,
            learning_rate=self._options.learning_rate,
            weight_decay=self._options.weight_decay,
        )
        self._average = copies(self._weights)

    def tensors(self) -> Groups:
        return {"optimiser": moments_of(self._optimiser), "average": copies(self._average)}

    def restore(self, groups: Groups) -> None:
        restore_moments(self._optimiser, groups["optimiser"])
        for name, average in self._average.items():
            average.copy_(groups["average"][name])


@contextmanager
def _rounded_products() -> Iterator[None]:
    """Let CUDA round the factors of float32 products, in the whole process."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class CompiledSteps(Steps):
    """Steps by compiled loops over one flat vector of all parameters.

    States are those of `AutogradSteps`: a training may begin with one and continue with the other.
    """

    def __init__(self, flow: Flow, options: FitOptions) -> None:
        self._flow, self._options = flow, options
        self._gradient = CompiledGradient(flow, row_loss_bound=options.row_loss_bound)
        self.learning_rate = options.learning_rate
        self._count = 0
        own = self._gradient.parameters
        self._moments = np.zeros_like(own), np.zeros_like(own)
        self._average = own[:0] if options.weight_average is None else own.copy()

    def compute(self, rows: Tensor) -> float:
        return self._gradient.compute(rows)

    def move(self, number: int) -> None:
        options, decay = self._options, self._options.weight_average
        share = 0.0 if decay is None else _average_share(decay, number)
        rates = self.learning_rate, options.weight_decay, options.max_gradient_norm or 0.0, share
        self._count += 1
        self._gradient.move(
            (*self._moments, self._average),
            rates,
            decoupled=options.optimiser == "adamw",
            count=self._count,
        )

    def score(self, rows: Tensor) -> Tensor:
        return self._gradient.score(rows)

    def settle(self, rows: Tensor) -> None:
        self._gradient.settle(rows)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        kept = self._gradient.parameters.copy()
        if len(self._average):
            self._gradient.parameters[:] = self._average
        try:
            yield
        finally:
            self._gradient.parameters[:] = kept

    def restart(self) -> None:
        self._count = 0
        for moment in self._moments:
            moment[:] = 0
        if len(self._average):
            self._average[:] = self._gradient.parameters

    def tensors(self) -> Groups:
        optimiser = {}
        if self._count > 0:
            first, second = (self._by_parameter(moment) for moment in self._moments)
            for index, parameter in enumerate(self._flow.parameters()):
                optimiser[f"{index}/step"] = torch.tensor(float(self._count))
                optimiser[f"{index}/exp_avg"] = first[id(parameter)].clone()
                optimiser[f"{index}/exp_avg_sq"] = second[id(parameter)].clone()
        average = {}
        if len(self._average):
            views = self._by_parameter(self._average)
            named = self._flow.named_parameters()
            average = {name: views[id(parameter)].clone() for name, parameter in named}
        return {"optimiser": optimiser, "average": average}

    def restore(self, groups: Groups) -> None:
        self.restart()
        optimiser = groups["optimiser"]
        first, second = (self._by_parameter(moment) for moment in self._moments)
        for index, parameter in enumerate(self._flow.parameters()):
            if f"{index}/step" in optimiser:
                self._count = int(optimiser[f"{index}/step"])
                first[id(parameter)].copy_(optimiser[f"{index}/exp_avg"])
                second[id(parameter)].copy_(optimiser[f"{index}/exp_avg_sq"])
        if len(self._average):
            views = self._by_parameter(self._average)
            for name, parameter in self._flow.named_parameters():
                views[id(parameter)].copy_(groups["average"][name])

    def _by_parameter(self, flat: Singles) -> dict[int, Tensor]:
        """Return the parts of a flat vector by the ids of their parameters."""
        views = self._gradient.views(flat)
        return {
            id(parameter): view
            for parameter, view in zip(self._gradient.program.parameters, views, strict=True)
        }
