"""Log densities written as formulas: a small grammar, its parser and its evaluation.

    formula := sum sum     := product (("+" | "-") product)* product := signed (("*" | "/") signed)*
    signed  := ("+" | "-") signed | power power   := operand [("^" | "**") signed] operand := number
    | "pi" | "e" | "z1" ... "zD" | "(" sum ")" | function "(" sum ("," sum)* ")"

So `-z1^2` is -(z1^2) and `2^3^2` is 2^(3^2). The parser writes a program for a stack machine, and
evaluation is a loop over it: no text is executed otherwise.

Python's own parser does not fit: its `^` binds weaker than `+`, it accepts many more texts, reports
other positions, and runs out of recursion or memory within `MAX_LENGTH` characters.
"""

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

MAX_LENGTH, MAX_DEPTH, MAX_NODES = 10_000, 50, 2_000

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
            text: Formula of the log density (the potential has the other sign).
            dim: Number of coordinates D.
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
        self._program = _Parser(text, dim).parse()

    def log_density(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return the value of the formula on each row."""
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


@dataclass(frozen=True)
class _Infix:
    """An operator between two operands, and its binding power on either side."""

    function: Callable[[Tensor, Tensor], Tensor]
    left: int
    right: int


_POWER = _Infix(torch.pow, 4, 3)  # to the right first: 2^3^2 = 2^(3^2)
_INFIX = {
    "+": _Infix(torch.add, 1, 2),
    "-": _Infix(torch.sub, 1, 2),
    "*": _Infix(torch.mul, 2, 3),
    "/": _Infix(torch.div, 2, 3),
    "^": _POWER,
    "**": _POWER,
}
_PREFIXES = ("+", "-", "(")
_SIGNED = 3  # -z1^2 = -(z1^2)

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)"
    r"|(?P<sign>\*\*|[-+*/^(),])"
)
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class _Token:
    """A token of the text; its kind is `end` after the last one."""

    kind: str
    text: str
    position: int


class _Parser:
    """A recursive-descent parser that writes a program; the depth of nesting is limited."""

    def __init__(self, text: str, dim: int) -> None:
        if len(text) > MAX_LENGTH:
            raise FormulaError(MAX_LENGTH + 1, f"a formula has at most {MAX_LENGTH} characters")
        self._dim = dim
        self._tokens = _split(text)
        self._next = 0
        self._depth = 0
        self._program: list[_Instruction] = []

    def parse(self) -> list[_Instruction]:
        if self._token.kind == "end":
            raise FormulaError(1, "the formula is empty")
        self._parse_expression(0)
        if self._token.kind != "end":
            raise self._build_error("an operator or the end")
        return self._program

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _parse_expression(self, least: int) -> None:
        """Parse an operand and the operators after it of at least this binding power (Pratt 1973).

        Every level of nesting calls this once.
        """
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FormulaError(self._token.position, f"more than {MAX_DEPTH} levels of nesting")
        self._parse_operand()
        while self._token.text in _INFIX and _INFIX[self._token.text].left >= least:
            operator = self._token
            self._next += 1
            self._parse_expression(_INFIX[operator.text].right)
            self._emit(operator, _Call(_INFIX[operator.text].function, 2))
        self._depth -= 1

    def _parse_operand(self) -> None:
        token = self._token
        if token.text not in _PREFIXES and token.kind not in ("number", "name"):
            raise self._build_error("a number, a coordinate, a function or '('")
        self._next += 1
        if token.text == "(":
            self._parse_expression(0)
            self._expect(")", "an operator or ')'")
        elif token.text in _PREFIXES:
            self._parse_expression(_SIGNED)
            if token.text == "-":
                self._emit(token, _Call(torch.neg, 1))
        elif token.kind == "number":
            self._emit(token, _parse_number(token))
        else:
            self._parse_name(token)

    def _parse_name(self, token: _Token) -> None:
        if token.text in FUNCTIONS:
            self._parse_function(token)
        elif token.text in CONSTANTS:
            self._emit(token, CONSTANTS[token.text])
        else:
            self._emit(token, self._parse_coordinate(token))

    def _parse_function(self, token: _Token) -> None:
        function, (fewest, most) = FUNCTIONS[token.text]
        self._expect("(", f"'(' after the function {token.text}")
        given = 1
        self._parse_expression(0)
        while self._token.text == ",":
            self._next += 1
            self._parse_expression(0)
            given += 1
        self._expect(")", "an operator, ',' or ')'")
        if not fewest <= given <= most:
            wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
            reason = f"{token.text} takes {wanted} argument{'s' * (most > 1)}, not {given}"
            raise FormulaError(token.position, reason)
        self._emit(token, _Call(function, given))

    def _parse_coordinate(self, token: _Token) -> int:
        """Return the index of a coordinate, from 0."""
        last = f"z{self._dim}"
        known = "z1" if self._dim == 1 else f"z1 to {last}"
        if not re.fullmatch("z[1-9][0-9]*", token.text):
            names = ", ".join([*CONSTANTS, *FUNCTIONS])
            reason = f"unknown name '{_shorten(token.text)}'; there are {known}, {names}"
            raise FormulaError(token.position, reason)
        if len(token.text) > len(last) or int(token.text[1:]) > self._dim:
            reason = f"unknown coordinate '{_shorten(token.text)}'; there are {known}"
            raise FormulaError(token.position, reason)
        return int(token.text[1:]) - 1

    def _expect(self, sign: str, wanted: str) -> None:
        if self._token.text != sign:
            raise self._build_error(wanted)
        self._next += 1

    def _build_error(self, wanted: str) -> FormulaError:
        token = self._token
        found = "the end" if token.kind == "end" else f"'{_shorten(token.text)}'"
        return FormulaError(token.position, f"expected {wanted}, found {found}")

    def _emit(self, token: _Token, instruction: _Instruction) -> None:
        if len(self._program) == MAX_NODES:
            reason = f"a formula has at most {MAX_NODES} numbers, names and operators"
            raise FormulaError(token.position, reason)
        self._program.append(instruction)


def _split(text: str) -> list[_Token]:
    tokens = []
    place = _skip_space(text, 0)
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None or found.lastgroup is None:
            raise FormulaError(place + 1, f"unexpected character {text[place]!r}")
        tokens.append(_Token(found.lastgroup, found.group(), place + 1))
        place = _skip_space(text, found.end())
    return [*tokens, _Token("end", "", len(text) + 1)]


def _skip_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return place if found is None else found.end()


def _parse_number(token: _Token) -> float:
    value = float(token.text)
    if math.isinf(value):
        raise FormulaError(token.position, f"the number '{_shorten(token.text)}' is too large")
    return value


def _shorten(text: str) -> str:
    return text if len(text) <= 30 else f"{text[:27]}..."
