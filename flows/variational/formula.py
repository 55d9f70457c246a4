"""Log densities written as formulas: what they may consist of, and their evaluation.

Numbers, `pi`, `e`, the coordinates `z1` to `zD`, `+ - * /`, `^` or `**`, brackets and functions, as in
Python: `-z1^2` is -(z1^2) and `2^3^2` is 2^(3^2). Python's parser reads the text; what it finds becomes a
program for a stack machine, or an error, and no text is executed otherwise.
"""

import ast
import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from flows.errors import FitError, FlowError
from flows.variational.targets import Target, Window

MAX_LENGTH, MAX_NODES = 10_000, 2_000

# Fewest and most arguments of a function.
ONE, TWO, SOME = (1, 1), (2, 2), (2, 100)


class FormulaError(FlowError):
    """A text that is not a formula.

    Attributes:
        position: Position of the first character that does not fit, counted from 1.
        reason: Sentence for people that says what was found and what was expected.
    """

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"at character {position}: {reason}")
        self.position = position
        self.reason = reason

    def pointer(self, text: str) -> str:
        """Return the line of the formula that has the error, and a caret under its position."""
        start = text.rfind("\n", 0, self.position - 1) + 1
        line = text[start:].partition("\n")[0]
        return f"{line}\n{' ' * (self.position - 1 - start)}^"


class FormulaTarget(Target):
    """A log density given as a formula of z1, ..., zD; the module's docstring has the grammar."""

    def __init__(self, text: str, dim: int, *, window: Window | None = None) -> None:
        """Parse a formula.

        Args:
            window: Window in which a KL divergence is computed by quadrature.

        Raises:
            FormulaError: The text is not a formula of D coordinates.
            FitError: `dim` is below 1, or the window has another dimension.
        """
        if dim < 1:
            raise FitError("a formula needs at least 1 coordinate")
        if window is not None and len(window.lower) != dim:
            raise FitError(f"the window must have {dim} coordinates, as the formula")
        self.dim = dim
        self.names = tuple(f"z{i}" for i in range(1, dim + 1))
        self.window = window
        self._program = _parse(text, dim)

    def log_density(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        stack: list[Tensor] = []
        for step in self._program:
            match step:
                case float():
                    stack.append(z.new_tensor(step))
                case int():
                    stack.append(z[:, step])
                case _Call():
                    arguments = stack[-step.arguments :]
                    del stack[-step.arguments :]
                    stack.append(step.function(*arguments))
        return stack[0].expand(len(z))


def _norm(*terms: Tensor) -> Tensor:
    """Return the root of the sum of squares; its gradient at 0 is 0."""
    together: tuple[Tensor, ...] = torch.broadcast_tensors(*terms)  # type: ignore[no-untyped-call]  # torch's own
    norm: Tensor = torch.linalg.vector_norm(torch.stack(together), dim=0)
    return norm


def _fold(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda *terms: functools.reduce(function, terms)


_Arity = tuple[int, int]

FUNCTIONS: dict[str, tuple[Callable[..., Tensor], _Arity]] = {
    "abs": (torch.abs, ONE),
    "cos": (torch.cos, ONE),
    "exp": (torch.exp, ONE),
    "log": (torch.log, ONE),
    "logaddexp": (_fold(torch.logaddexp), SOME),
    "max": (_fold(torch.maximum), SOME),
    "min": (_fold(torch.minimum), SOME),
    "norm": (_norm, SOME),
    "pow": (torch.pow, TWO),
    "sigmoid": (torch.sigmoid, ONE),
    "sin": (torch.sin, ONE),
    "softplus": (F.softplus, ONE),
    "sqrt": (torch.sqrt, ONE),
    "square": (torch.square, ONE),
    "tan": (torch.tan, ONE),
    "tanh": (torch.tanh, ONE),
}

CONSTANTS = {"pi": math.pi, "e": math.e}


@dataclass(frozen=True)
class _Call:
    """An instruction that replaces the last values of the stack by a function of them."""

    function: Callable[..., Tensor]
    arguments: int


# A number, the index of a coordinate, or a call.
_Instruction = float | int | _Call


_OPERATORS: dict[type[ast.AST], Callable[..., Tensor]] = {
    ast.Add: torch.add,
    ast.Sub: torch.sub,
    ast.Mult: torch.mul,
    ast.Div: torch.div,
    ast.Pow: torch.pow,
    ast.USub: torch.neg,
    ast.UAdd: torch.clone,
}
_CHARACTER = re.compile(r"[^A-Za-z0-9_.+\-*/^(), \t\r\n]")


def _parse(text: str, dim: int) -> list[_Instruction]:
    """Return the program of a formula of `dim` coordinates.

    Raises:
        FormulaError: The text is no formula.
    """
    if len(text) > MAX_LENGTH:
        raise FormulaError(MAX_LENGTH + 1, f"a formula has at most {MAX_LENGTH} characters")
    if not text.strip():
        raise FormulaError(1, "the formula is empty")
    if unknown := _CHARACTER.search(text):
        raise FormulaError(unknown.start() + 1, f"unexpected character {unknown.group()!r}")
    # What Python reads, and the position in the text of each of its characters.
    start = len(text) - len(text.lstrip())
    spread = [(one, n + 1) for n, sign in enumerate(text) for one in _SPELT.get(sign, sign)][start:]
    positions = [*(position for _, position in spread), len(text) + 1]
    try:
        tree = ast.parse("".join(one for one, _ in spread), mode="eval")
    except SyntaxError as error:
        place = min((error.offset or len(spread) + 1) - 1, len(spread))
        raise FormulaError(positions[place], f"{error.msg}") from None
    except (RecursionError, MemoryError):
        raise FormulaError(1, "the formula is nested too deeply") from None
    return _program_of(tree.body, dim, positions)


_SPELT = {"^": "**", "\n": " ", "\r": " ", "\t": " "}


def _program_of(tree: ast.expr, dim: int, positions: list[int]) -> list[_Instruction]:
    """Return the program of a tree, without recursion: sums of many terms are deep."""
    program: list[_Instruction] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        position = positions[node.col_offset]
        if len(program) == MAX_NODES:
            reason = f"a formula has at most {MAX_NODES} numbers, names and operators"
            raise FormulaError(position, reason)
        instruction, operands = _instruction_of(node, dim, position)
        program.append(instruction)
        waiting += operands
    program.reverse()
    return program


def _instruction_of(node: ast.expr, dim: int, position: int) -> tuple[_Instruction, list[ast.expr]]:
    """Return the instruction of a node, and its operands."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _number(value, position), []
        case ast.Name(id=name):
            return CONSTANTS[name] if name in CONSTANTS else _coordinate(name, dim, position), []
        case ast.BinOp(left, operator, right) if type(operator) in _OPERATORS:
            return _Call(_OPERATORS[type(operator)], 2), [left, right]
        case ast.UnaryOp(operator, operand) if type(operator) in _OPERATORS:
            return _Call(_OPERATORS[type(operator)], 1), [operand]
        case ast.Call(ast.Name(id=name), arguments, []) if name in FUNCTIONS:
            function, (fewest, most) = FUNCTIONS[name]
            if not fewest <= len(arguments) <= most:
                wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
                reason = f"{name} takes {wanted} argument{'s' * (most > 1)}, not {len(arguments)}"
                raise FormulaError(position, reason)
            return _Call(function, len(arguments)), arguments
        case ast.Call(ast.Name(id=name)):
            known = ", ".join(FUNCTIONS)
            raise FormulaError(position, f"unknown function '{_shorten(name)}'; there are {known}")
        case _:
            raise FormulaError(
                position, "expected numbers, coordinates, functions and + - * / ^ alone"
            )


def _number(value: int | float, position: int) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise FormulaError(position, "the number is too large")
    return number


def _coordinate(name: str, dim: int, position: int) -> int:
    """Return the index of a coordinate, from 0."""
    last = f"z{dim}"
    known = "z1" if dim == 1 else f"z1 to {last}"
    if not re.fullmatch("z[1-9][0-9]*", name):
        names = ", ".join([*CONSTANTS, *FUNCTIONS])
        reason = f"unknown name '{_shorten(name)}'; there are {known}, {names}"
        raise FormulaError(position, reason)
    if len(name) > len(last) or int(name[1:]) > dim:
        raise FormulaError(position, f"unknown coordinate '{_shorten(name)}'; there are {known}")
    return int(name[1:]) - 1


def _shorten(text: str) -> str:
    return text if len(text) <= 30 else f"{text[:27]}..."
