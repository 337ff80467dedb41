"""How things are timed: races, clocks, the machine, what a run may take."""
