"""The environment of child processes that need no secret."""

import os

# What programs, the loader, the locale and the libraries of numbers read; no variable of ours.
_NAMES = frozenset(
    {"HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "TMPDIR", "TZ", "XDG_CACHE_HOME"}
)
_PREFIXES = (
    "CUBLAS_",
    "CUDA_",
    "CUDNN_",
    "KMP_",
    "MKL_",
    "NCCL_",
    "NUMBA_",
    "NVIDIA_",
    "OMP_",
    "OPENBLAS_",
    "PYTHON",
    "PYTORCH_",
    "TORCH",
)


def child_environment(**variables: str) -> dict[str, str]:
    """Return an environment without the passwords and URLs of this process's own.

    Args:
        **variables: Variables to add or to replace.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name in _NAMES or name.startswith(_PREFIXES)
    }
    return inherited | variables
