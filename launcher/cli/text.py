"""Text of others on its way to a terminal."""

from launcher.text import plain, plain_lines

__all__ = ["plain", "plain_lines"]
