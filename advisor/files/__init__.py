"""Formats of the files in the user's data folder."""
