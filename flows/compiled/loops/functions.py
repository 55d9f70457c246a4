"""Elementary functions for compiled loops, in float32, and the decorator that compiles them."""

from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
from numba import float32, int32, njit

from flows.compiled.loops import loop_cache
from flows.compiled.loops.micro_kernels import bits_of, number_of, two_to_the

# mypy: ignore-errors
# numba compiles these functions by its own types.

loop_cache.install()


def jit(*signature: Any) -> Callable[..., Any]:
    """Compile a function, and keep the result in numba's cache."""
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(*signature, cache=True, **options)(function)
        except RuntimeError:  # no folder to cache in: compile in every process
            return njit(*signature, **options)(function)

    return decorate


@jit()
@no_type_check
def exp(x):
    """Return the exponential to 2 units in the last place, without branches (Cephes' expf).

    Beyond float32's range it is 0 or infinite; NaN stays NaN.
    """
    x = float32(-104) if x < float32(-104) else x
    n = np.floor(x * float32(1.44269504088896341) + float32(0.5))
    n = float32(129) if n > float32(129) else n
    n = n if n > float32(-151) else float32(-151)  # NaN, which no integer is
    r = x - n * float32(0.693359375)
    r = r - n * float32(-2.12194440e-4)
    p = float32(1.9875691500e-4)
    p = p * r + float32(1.3981999507e-3)
    p = p * r + float32(8.3334519073e-3)
    p = p * r + float32(4.1665795894e-2)
    p = p * r + float32(1.6666665459e-1)
    p = p * r + float32(5.0000001201e-1)
    p = p * (r * r) + (r + float32(1))
    whole = int32(n)
    half = whole >> int32(1)
    return p * two_to_the(half) * two_to_the(whole - half)


@jit()
@no_type_check
def tanh(x):
    """Return the hyperbolic tangent to 2e-7, as the ratio of polynomials that Eigen and XLA use."""
    x = float32(-7.905311) if x < float32(-7.905311) else x
    x = float32(7.905311) if x > float32(7.905311) else x
    s = x * x
    p = float32(-2.76076847742355e-16)
    p = p * s + float32(2.00018790482477e-13)
    p = p * s + float32(-8.60467152213735e-11)
    p = p * s + float32(5.12229709037114e-08)
    p = p * s + float32(1.48572235717979e-05)
    p = p * s + float32(6.37261928875436e-04)
    p = p * s + float32(4.89352455891786e-03)
    q = float32(1.19825839466702e-06)
    q = q * s + float32(1.18534705686654e-04)
    q = q * s + float32(2.26843463243900e-03)
    q = q * s + float32(4.89352518554385e-03)
    return x * p / q


@jit()
@no_type_check
def erf(x):
    """Return the error function to 5e-7, as the ratio of polynomials that Eigen and XLA use."""
    x = float32(-4) if x < float32(-4) else x
    x = float32(4) if x > float32(4) else x
    s = x * x
    p = float32(-2.72614225801306e-10)
    p = p * s + float32(2.77068142495902e-08)
    p = p * s + float32(-2.10102402082508e-06)
    p = p * s + float32(-5.69250639462346e-05)
    p = p * s + float32(-7.34990630326855e-04)
    p = p * s + float32(-2.95459980854025e-03)
    p = p * s + float32(-1.60960333262415e-02)
    q = float32(-1.45660718464996e-05)
    q = q * s + float32(-2.13374055278905e-04)
    q = q * s + float32(-1.68282697438203e-03)
    q = q * s + float32(-7.37332916720468e-03)
    q = q * s + float32(-1.42647390514189e-02)
    return x * p / q


@jit()
@no_type_check
def log(x):
    """Return the logarithm to 1 unit in the last place (Cephes' logf).

    It is minus infinity at 0, infinity at infinity, and NaN for negative numbers.
    """
    bits = bits_of(x)
    exponent = float32((bits >> int32(23)) - int32(126))
    m = number_of((bits & int32(0x007FFFFF)) | int32(0x3F000000))
    low = m < float32(0.70710678118654752)
    exponent = exponent - float32(1) if low else exponent
    m = m + m - float32(1) if low else m - float32(1)
    z = m * m
    p = float32(7.0376836292e-2)
    p = p * m + float32(-1.1514610310e-1)
    p = p * m + float32(1.1676998740e-1)
    p = p * m + float32(-1.2420140846e-1)
    p = p * m + float32(1.4249322787e-1)
    p = p * m + float32(-1.6668057665e-1)
    p = p * m + float32(2.0000714765e-1)
    p = p * m + float32(-2.4999993993e-1)
    p = p * m + float32(3.3333331174e-1)
    y = p * m * z + exponent * float32(-2.12194440e-4) - float32(0.5) * z
    y = m + y + exponent * float32(0.693359375)
    y = float32(-np.inf) if x <= float32(0) else y
    y = float32(np.nan) if x < float32(0) else y
    return y if x < float32(np.inf) else x
