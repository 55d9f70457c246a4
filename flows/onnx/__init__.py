"""Flows as ONNX graphs: rows in, log densities out."""

try:
    import onnx  # noqa: F401 - its modules are imported one by one, where it is known to be there
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "ONNX files need the package onnx: pip install 'densityd[onnx]', or 'densityd-flows[onnx]' for flows alone.",
        name="onnx",
    ) from error
