"""The networks and their files: architecture, weights, cards, import of foreign checkpoints."""
