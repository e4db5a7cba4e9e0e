"""Other tools' configuration files, read as a question: one module a format, and what each key became."""
