"""The use case: a question in, an Advice out."""
