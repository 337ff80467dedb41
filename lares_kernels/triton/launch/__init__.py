"""Share rules, constants and rounding of launches among both plans and the catalogue ops."""
