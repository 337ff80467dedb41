"""What both plans and the catalogue ops know of a launch: rules of cards, constants, rounding."""
