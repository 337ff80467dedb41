"""Which backend runs a call: the register, what decides, self-checks, plans that do not start."""
