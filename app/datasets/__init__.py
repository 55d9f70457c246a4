"""Datasets: routes, uploads and views."""
