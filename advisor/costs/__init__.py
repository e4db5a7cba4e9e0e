"""Bytes and seconds of a recipe on a card."""
