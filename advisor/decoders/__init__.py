"""The mirror of transformers' model code on the tape."""
