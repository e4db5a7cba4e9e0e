"""Everything that runs beside torch; started as processes, imported by nobody else."""
