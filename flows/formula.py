"""Log densities written as formulas: a small grammar, its parser and its evaluation."""

from jaxtyping import Float
from torch import Tensor

from flows.errors import FlowError
from flows.targets import Target, Window

MAX_LENGTH, MAX_DEPTH, MAX_NODES = 10_000, 100, 2_000


class FormulaError(FlowError):
    """A text that is not a formula.

    Attributes:
        position: of the first character that does not fit, counted from 1.
        reason: what was found and what was expected, for people.
    """

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"at character {position}: {reason}")
        self.position = position
        self.reason = reason

    def pointer(self, text: str) -> str:
        """The line of the formula that holds the error, a caret under the place."""
        raise NotImplementedError


class FormulaTarget(Target):
    """A log density given as a formula of z1, ..., zD; `docs/variational.md` has the grammar."""

    def __init__(self, text: str, dim: int, *, window: Window | None = None) -> None:
        """Parses the formula.

        Args:
            text: the log density (not the potential, which has the other sign).
            dim: coordinates D.
            window: where a KL divergence is computed by quadrature.

        Raises:
            FormulaError: the text is not a formula of so many coordinates.
            FitError: dim is below 1, or the window has other dimensions.
        """
        raise NotImplementedError

    def log_density(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """The formula's value on each row."""
        raise NotImplementedError
