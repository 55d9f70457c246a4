"""Arithmetic of training steps: precision, matrix library, and denormal numbers."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

# Number of multiplications from which on oneDNN's products are faster than MKL's.
_LARGE = 2**22
_FINE = 2.0**-12  # lost when 1 + this is rounded to bfloat16, kept in float32


@contextmanager
def products(*, mixed: bool, device: torch.device, multiplications: int) -> Iterator[None]:
    """Choose the precision of float32 matrix products, in the whole process.

    What torch calls medium precision may round factors: on CUDA to TF32. On processors it hands the
    products to oneDNN, which rounds to bfloat16 only if the processor has units for it (AMX), and
    otherwise computes in float32 as MKL does, without the preference that MKL has for Intel's
    processors: on one of AMD with AVX-512 it takes less than half of the time. So large products go
    to oneDNN whenever nothing is lost.

    Args:
        mixed: True if rounding is allowed.
        device: Device of the matrices.
        multiplications: Number of multiplications in the largest of the products.
    """
    lossless = device.type == "cpu" and multiplications >= _LARGE and medium_is_exact()
    if not (mixed or lossless):
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@cache
def medium_is_exact() -> bool:
    """Return True if products of medium precision are computed in float32 on this processor."""
    rows, size = 128, 256
    factor = torch.full((rows, size), 1 + _FINE)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = factor @ torch.ones(size, size)
    finally:
        torch.set_float32_matmul_precision(before)
    return bool(((found / size - 1 - _FINE).abs() < _FINE / 8).all())


@contextmanager
def denormals_as_zero() -> Iterator[None]:
    """Flush float32 denormals (below 1.2e-38) to zero, in this thread and those that it starts.

    Weight decay pulls weights without a gradient towards zero, and Adam's averages of
    their gradients after them. Intel processors take a hundred times longer for denormals
    than for other numbers: epochs of five minutes come to take fifteen.
    """
    if _takes_denormals_for_zero() or not torch.set_flush_denormal(True):
        yield
        return
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _takes_denormals_for_zero() -> bool:
    return bool(torch.full((1,), torch.finfo(torch.float32).tiny) / 2 == 0)
