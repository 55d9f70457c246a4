"""Compiled loops that kernels are made of: numba functions, and LLVM code where those are slow."""
