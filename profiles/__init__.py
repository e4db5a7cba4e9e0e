"""Data only: models, GPUs and measurements, read as files of the installed package."""
