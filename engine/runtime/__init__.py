"""Run a generator: choose a backend, compile, check against fp32, translate batches."""
