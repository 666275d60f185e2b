"""Several points of one config, planned, run and resumed as one thing. Each point is an invocation."""
