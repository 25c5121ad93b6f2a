"""Measurements: each file states its ceiling, measures, and ends with one line of JSON."""
