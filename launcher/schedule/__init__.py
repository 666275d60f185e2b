"""Runs that begin by themselves: at times of a calendar, and for every new checkpoint."""
