"""Text of others on its way to a terminal."""

from launcher.text import plain

__all__ = ["plain"]
