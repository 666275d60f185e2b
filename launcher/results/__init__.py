"""Scores: written, read back, shown."""
