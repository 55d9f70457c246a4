"""Activations of networks, in place."""

from typing import no_type_check

from numba import float32

from flows.compiled.loops.functions import erf, exp, jit, tanh
from flows.compiled.loops.micro_kernels import stay_apart
from flows.compiled.packed_fields import ELU, GELU, RELU

# mypy: ignore-errors
# numba compiles these functions by its own types.


@jit()
@no_type_check
def activate(kind, h):
    """Apply an activation in place."""
    stay_apart()
    if kind == RELU:
        for j in range(len(h)):
            h[j] = float32(0) if h[j] < float32(0) else h[j]
    elif kind == ELU:
        for j in range(len(h)):
            h[j] = exp(h[j]) - float32(1) if h[j] < float32(0) else h[j]
    elif kind == GELU:
        for j in range(len(h)):
            h[j] = float32(0.5) * h[j] * (float32(1) + erf(h[j] * float32(0.70710678118654752)))
    else:
        for j in range(len(h)):
            h[j] = tanh(h[j])
