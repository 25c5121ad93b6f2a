"""Measurements: each script states its ceiling, measures, and ends with one line of JSON; `run_all` runs them all."""
