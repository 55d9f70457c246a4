"""Flows as ONNX graphs: rows in, log densities out."""
