"""Plans for Slurm: the batch script and the options of sbatch, as they will be sent."""
