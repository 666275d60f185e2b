"""Model servers of our own, each a program that a deployment starts."""
