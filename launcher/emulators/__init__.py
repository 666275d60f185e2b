"""Control planes of other people's clouds on loopback, for tests and rehearsals."""
