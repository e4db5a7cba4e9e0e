"""The page's door to the engine: a question as JSON in, all that a page shows of its answer as JSON out.

It runs where Python does, in a browser too: without pydantic, click, rich and platformdirs, and without any file but
those of the package.
"""
