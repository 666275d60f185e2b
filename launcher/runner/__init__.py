"""The program that runs inside every job, on every platform. Standard library only; imports nothing of the launcher."""
