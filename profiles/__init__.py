"""Data only: models, GPUs and measurements, read through importlib.resources."""
