"""How good a generator is: one score per file."""
