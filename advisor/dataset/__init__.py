"""Data sets: rows of a file, the texts that training reads from them, and their lengths in tokens."""
