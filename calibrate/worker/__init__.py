"""Everything that imports torch; started as processes, not imported by the rest of the package."""
