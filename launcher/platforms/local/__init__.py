"""This machine: servers as processes or as containers, jobs beside them."""
