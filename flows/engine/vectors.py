"""Vectors of float32 in LLVM code: a row of a tile in each lane, written with Python's operators.

Products and sums are fused where a formula says so and nowhere else: a value is the same, to the bit,
in a vector of any width.
"""

import functools
from collections.abc import Callable
from typing import Any

import llvmlite.binding
from llvmlite import ir

# mypy: ignore-errors
# llvmlite has no types.

FLOAT, DOUBLE, WORD, INT = ir.FloatType(), ir.DoubleType(), ir.IntType(64), ir.IntType(32)
# Whether the processor fuses a product and a sum; without it LLVM would call a function for each.
_features = llvmlite.binding.get_host_cpu_features()
HAS_FMA = bool(_features.get("fma", False)) or "aarch64" in llvmlite.binding.get_process_triple()

_LOG_OF_2 = 0.693359375, -2.12194440e-4
_INFINITY = float("inf")


class Emitter:
    """Emitter of instructions on vectors of one width."""

    def __init__(self, builder: Any, lanes: int) -> None:
        self.b = builder
        self.lanes = lanes
        self.vector = ir.VectorType(FLOAT, lanes)

    def number(self, value: int) -> Any:
        """Return a 64-bit integer."""
        return ir.Constant(WORD, value)

    def load(self, address: Any, index: Any) -> Any:
        """Return the vector at an address, `index` vectors further."""
        return self.b.load(self._at(address, self.vector, index), typ=self.vector, align=4)

    def store(self, value: Any, address: Any, index: Any) -> None:
        """Store a vector at an address, `index` vectors further."""
        self.b.store(value, self._at(address, self.vector, index), align=4)

    def add_to_doubles(self, value: Any, address: Any) -> None:
        """Add a vector to the numbers in double precision at an address."""
        doubles = ir.VectorType(DOUBLE, self.lanes)
        place = self._at(address, doubles, self.number(0))
        total = self.b.fadd(self.b.load(place, typ=doubles, align=8), self.b.fpext(value, doubles))
        self.b.store(total, place, align=8)

    def word(self, address: Any, index: Any) -> Any:
        """Return the integer at an address, `index` integers further."""
        return self.b.load(self._at(address, WORD, index), typ=WORD)

    def single(self, address: Any, index: Any) -> Any:
        """Return the number at an address, `index` numbers further."""
        return self.b.load(self._at(address, FLOAT, index), typ=FLOAT)

    def spread(self, address: Any, index: Any) -> Any:
        """Return the number at an address, `index` numbers further, in all lanes."""
        return self.splat(self.single(address, index))

    def splat(self, scalar: Any) -> Any:
        """Return a number in all lanes."""
        nothing = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        zeros = ir.Constant(ir.VectorType(INT, self.lanes), [0] * self.lanes)
        first = self.b.insert_element(nothing, scalar, ir.Constant(INT, 0))
        return self.b.shuffle_vector(first, nothing, zeros)

    def constant(self, value: float) -> Any:
        """Return a constant in all lanes."""
        return ir.Constant(self.vector, [value] * self.lanes)

    def multiply_add(self, total: Any, a: Any, b: Any) -> Any:
        """Return total + a b, rounded once where the processor does that."""
        if not HAS_FMA:
            return self.b.fadd(total, self.b.fmul(a, b))
        return self.call("llvm.fma", a, b, total)

    def total(self, sums: list[Any], *first: Any) -> Any:
        """Return the sum of some numbers, if there are such, and of all lanes of some vectors."""
        whole = sums[0]
        for one in sums[1:]:
            whole = self.b.fadd(whole, one)
        lanes = [self.b.extract_element(whole, ir.Constant(INT, n)) for n in range(self.lanes)]
        return functools.reduce(self.b.fadd, [*first, *lanes])

    def call(self, name: str, *values: Any) -> Any:
        """Return the result of an elementwise function of LLVM."""
        declared = f"{name}.v{self.lanes}f32"
        function = self.b.module.globals.get(declared)
        if function is None:
            signature = ir.FunctionType(self.vector, [self.vector] * len(values))
            function = ir.Function(self.b.module, signature, declared)
        return self.b.call(function, values)

    def choose(
        self, condition: Any, yes: Callable[[], list[Any]], no: Callable[[], list[Any]]
    ) -> Any:
        """Return the values of one of two branches."""
        with self.b.if_else(condition) as (then, otherwise):
            with then:
                first, end_first = yes(), self.b.block
            with otherwise:
                second, end_second = no(), self.b.block
        chosen = []
        for a, b in zip(first, second, strict=True):
            phi = self.b.phi(self.vector)
            phi.add_incoming(a, end_first)
            phi.add_incoming(b, end_second)
            chosen.append(phi)
        return chosen

    def loop(
        self, begin: Any, end: Any, step: int, start: list[Any], body: Callable[..., list[Any]]
    ) -> Any:
        """Fold `body(k, values)` over a range; return the end of the range and the last values."""

        def goes(k: Any, *_: Any) -> Any:
            return self.b.icmp_signed("<=", self.b.add(k, self.number(step)), end)

        def some(k: Any, *values: Any) -> list[Any]:
            return [self.b.add(k, self.number(step)), *body(k, list(values))]

        k, *values = self._while([begin, *start], goes, some)
        return k, values

    def repeat(self, most: int, start: list[Any], body: Callable[..., Any]) -> list[Any]:
        """Repeat `body(values)` until no lane is unfinished, at most so often; return the last values.

        The body returns the next values and the unfinished lanes. It must leave finished lanes as
        they are: how often it is called depends on all lanes.
        """
        bit, lanes = ir.IntType(1), ir.IntType(self.lanes)

        def goes(k: Any, going: Any, *_: Any) -> Any:
            return self.b.and_(going, self.b.icmp_signed("<", k, self.number(most)))

        def some(k: Any, _: Any, *values: Any) -> list[Any]:
            results, unfinished = body(list(values))
            left = self.b.bitcast(unfinished, lanes)
            going = self.b.icmp_unsigned("!=", left, ir.Constant(lanes, 0))
            return [self.b.add(k, self.number(1)), going, *results]

        return self._while([self.number(0), ir.Constant(bit, 1), *start], goes, some)[2:]

    def _while(
        self, start: list[Any], goes: Callable[..., Any], body: Callable[..., list[Any]]
    ) -> list[Any]:
        """Replace values by `body(*values)` as long as `goes(*values)` holds; return the last ones."""
        b, before = self.b, self.b.block
        head, inside, after = (b.append_basic_block() for _ in range(3))
        b.branch(head)
        b.position_at_end(head)
        values = [b.phi(value.type) for value in start]
        b.cbranch(goes(*values), inside, after)
        b.position_at_end(inside)
        results = body(*values)
        for value, first, result in zip(values, start, results, strict=True):
            value.add_incoming(first, before)
            value.add_incoming(result, b.block)
        b.branch(head)
        b.position_at_end(after)
        return values

    def _at(self, address: Any, kind: ir.Type, index: Any) -> Any:
        pointer = self.b.inttoptr(address, kind.as_pointer())
        return self.b.gep(pointer, [index], source_etype=kind)


def in_vectors(
    builder: Any,
    lanes: int,
    begin: Any,
    end: Any,
    prepared: Callable[[Emitter], Callable[[Any], None]],
) -> None:
    """Emit `prepared(emitter)(k)` over a range in vectors, then over the rest one by one."""
    for width in (lanes, 1):
        e = Emitter(builder, width)
        body = prepared(e)

        def some(k: Any, _: list[Any], body: Callable[[Any], None] = body) -> list[Any]:
            body(k)
            return []

        begin, _ = e.loop(begin, end, width, [], some)


class Vector:
    """Vector with Python's operators; the other operand may be a number."""

    def __init__(self, emitter: Emitter, value: Any) -> None:
        self.e, self.value = emitter, value

    def of(self, value: "Vector | float") -> "Vector":
        """Return a vector of the same width."""
        return value if isinstance(value, Vector) else Vector(self.e, self.e.constant(value))

    def _with(self, operation: str, other: "Vector | float") -> "Vector":
        emit = getattr(self.e.b, operation)
        return Vector(self.e, emit(self.value, self.of(other).value))

    def __add__(self, other: "Vector | float") -> "Vector":
        return self._with("fadd", other)

    def __radd__(self, other: float) -> "Vector":
        return self.of(other) + self

    def __sub__(self, other: "Vector | float") -> "Vector":
        return self._with("fsub", other)

    def __rsub__(self, other: float) -> "Vector":
        return self.of(other) - self

    def __mul__(self, other: "Vector | float") -> "Vector":
        return self._with("fmul", other)

    def __rmul__(self, other: float) -> "Vector":
        return self.of(other) * self

    def __truediv__(self, other: "Vector | float") -> "Vector":
        return self._with("fdiv", other)

    def __rtruediv__(self, other: float) -> "Vector":
        return self.of(other) / self

    def __neg__(self) -> "Vector":
        return Vector(self.e, self.e.b.fneg(self.value))

    def __abs__(self) -> "Vector":
        return Vector(self.e, self.e.call("llvm.fabs", self.value))

    def __lt__(self, other: "Vector | float") -> Any:
        return self.e.b.fcmp_ordered("<", self.value, self.of(other).value)

    def __le__(self, other: "Vector | float") -> Any:
        return self.e.b.fcmp_ordered("<=", self.value, self.of(other).value)

    def __gt__(self, other: "Vector | float") -> Any:
        return self.e.b.fcmp_ordered(">", self.value, self.of(other).value)

    def __ge__(self, other: "Vector | float") -> Any:
        return self.e.b.fcmp_ordered(">=", self.value, self.of(other).value)

    def equals(self, other: "Vector | float") -> Any:
        """Return the lanes in which both are equal."""
        return self.e.b.fcmp_ordered("==", self.value, self.of(other).value)

    def where(self, condition: Any, other: "Vector | float") -> "Vector":
        """Return this vector where a condition holds, and the other elsewhere."""
        return Vector(self.e, self.e.b.select(condition, self.value, self.of(other).value))

    def plus(self, a: "Vector | float", b: "Vector | float") -> "Vector":
        """Return this vector plus a product, rounded once."""
        return Vector(self.e, self.e.multiply_add(self.value, self.of(a).value, self.of(b).value))

    def at_least(self, other: "Vector | float") -> "Vector":
        """Return the larger one; the other where this is not a number."""
        return self.where(self > other, other)

    def at_most(self, other: "Vector | float") -> "Vector":
        """Return the smaller one; the other where this is not a number."""
        return self.where(self < other, other)

    def clamp(self, low: float, high: float) -> "Vector":
        """Return the vector within two bounds; what is not a number stays so."""
        raised = self.of(low).where(self < low, self)
        return raised.of(high).where(raised > high, raised)

    def sqrt(self) -> "Vector":
        """Return the square root."""
        return Vector(self.e, self.e.call("llvm.sqrt", self.value))

    def floor(self) -> "Vector":
        """Return the largest whole number that is not larger."""
        return Vector(self.e, self.e.call("llvm.floor", self.value))

    def whole(self) -> Any:
        """Return 32-bit integers, of whole numbers within their range."""
        return self.e.b.fptosi(self.value, ir.VectorType(INT, self.e.lanes))


def polynomial(x: Vector, *coefficients: float) -> Vector:
    """Return the value of a polynomial, its highest coefficient first."""
    result = x.of(coefficients[0])
    for coefficient in coefficients[1:]:
        result = x.of(coefficient).plus(result, x)
    return result


def exp(x: Vector) -> Vector:
    """Return the exponential to 2 units in the last place (Cephes' expf).

    Beyond float32's range it is 0 or infinite; NaN stays NaN.
    """
    x = x.of(-104.0).where(x < -104.0, x)
    n = x.of(0.5).plus(x, 1.44269504088896341).floor()
    n = n.at_most(129.0)
    r = x.plus(-n, _LOG_OF_2[0]).plus(-n, _LOG_OF_2[1])
    p = polynomial(
        r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
        5.0000001201e-1,
    )  # fmt: skip
    p = (r + 1.0).plus(p, r * r)
    # In two halves: the exponent of one would be out of range. NaN, which no integer is, gets 129.
    whole = n.whole()
    half = x.e.b.ashr(whole, _integers(x.e, 1))
    return p * _two_to_the(x.e, half) * _two_to_the(x.e, x.e.b.sub(whole, half))


def log(x: Vector) -> Vector:
    """Return the logarithm to 1e-7 of its size (Cephes' logf), of numbers that are not denormal."""
    e, b = x.e, x.e.b
    bits = b.bitcast(x.value, ir.VectorType(INT, e.lanes))
    # The exponent of the power of 2 that leaves a factor from sqrt(1/2) to sqrt(2).
    power = b.ashr(b.sub(bits, _integers(e, 0x3F3504F3)), _integers(e, 23))
    factor = Vector(e, b.bitcast(b.sub(bits, b.shl(power, _integers(e, 23))), e.vector))
    n = Vector(e, b.sitofp(power, e.vector))
    f = factor - 1.0
    square = f * f
    p = polynomial(
        f, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
    )  # fmt: skip
    rest = (p * f * square).plus(n, _LOG_OF_2[1]).plus(square, -0.5)
    result = (f + rest).plus(n, _LOG_OF_2[0])
    special = x.of(_INFINITY).where(x > 0.0, x.of(-_INFINITY).where(x.equals(0.0), float("nan")))
    return result.where(b.and_((x > 0.0), (x < _INFINITY)), special)


def tanh(x: Vector) -> Vector:
    """Return the hyperbolic tangent to 2e-7, as the ratio of polynomials that Eigen and XLA use."""
    x = x.clamp(-7.905311, 7.905311)
    s = x * x
    p = polynomial(
        s, -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11,
        5.12229709037114e-08, 1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
    )  # fmt: skip
    q = polynomial(
        s, 1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03
    )
    return x * p / q


def erf(x: Vector) -> Vector:
    """Return the error function to 5e-7, as the ratio of polynomials that Eigen and XLA use."""
    x = x.clamp(-4.0, 4.0)
    s = x * x
    p = polynomial(
        s, -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06,
        -5.69250639462346e-05, -7.34990630326855e-04, -2.95459980854025e-03,
        -1.60960333262415e-02,
    )  # fmt: skip
    q = polynomial(
        s, -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03,
        -7.37332916720468e-03, -1.42647390514189e-02,
    )  # fmt: skip
    return x * p / q


def softplus(x: Vector) -> Vector:
    """Return log(1 + exp(x)), to 1e-7."""
    return x.at_least(0.0) + log(1.0 + exp(-abs(x)))


def log_of_one_and(x: Vector) -> Vector:
    """Return log(1 + x) of x >= 0, to 2e-7 of its size."""
    whole = 1.0 + x
    is_small = whole.equals(1.0)
    return x.where(is_small, log(whole) * x / x.of(1.0).where(is_small, whole - 1.0))


def exp_less_one(x: Vector) -> Vector:
    """Return exp(x) - 1 of x >= 0, to 3e-7 of its size (Kahan)."""
    whole = exp(x)
    logarithm = log(whole)
    is_small, is_large = whole.equals(1.0), x > 8.0
    exact = (whole - 1.0) * x / x.of(1.0).where(is_small, logarithm)
    return x.where(is_small, whole.where(is_large, exact))


def _integers(e: Emitter, value: int) -> Any:
    return ir.Constant(ir.VectorType(INT, e.lanes), [value] * e.lanes)


def _two_to_the(e: Emitter, exponent: Any) -> Vector:
    """Return 2 to integers from -126 to 127."""
    biased = e.b.add(exponent, _integers(e, 127))
    return Vector(e, e.b.bitcast(e.b.shl(biased, _integers(e, 23)), e.vector))
