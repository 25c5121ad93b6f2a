"""Observability: metrics, health, logs, profiler ranges."""
