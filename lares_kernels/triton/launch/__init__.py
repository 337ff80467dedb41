"""Share what both plans and the catalogue ops know of a launch: cards' rules, constants,
rounding."""
