"""The page as static files: the engine and its runtime, put together, written to a folder or shown on loopback."""
