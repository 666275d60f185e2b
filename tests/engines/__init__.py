"""Real engines for the tests to run against."""
