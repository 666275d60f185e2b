"""Servers, and jobs that have an image, as containers of Docker or podman on this machine."""
