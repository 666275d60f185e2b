"""Slurm: endpoints and evaluations as batch jobs, through Slurm's own commands."""
