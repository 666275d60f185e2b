"""Text of others on its way to a terminal."""

from launcher.platforms.text import plain

__all__ = ["plain"]
