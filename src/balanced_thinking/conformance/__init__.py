"""Can this model be trained, packed, evaluated and resumed exactly? `balanced check` finds out on a shrunken copy."""
