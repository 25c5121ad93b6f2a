"""Ways to run a generator, behind one interface: `base` says what a backend promises."""
