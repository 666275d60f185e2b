"""The room that decides: life cycle of tasks, admission, teardown, journal."""
