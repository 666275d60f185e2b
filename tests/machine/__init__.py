"""Random lives of an invocation: plans, faults, kills, clocks that jump, on a world that outlives its launchers."""
