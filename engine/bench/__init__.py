"""Measure this machine: ceilings, each stage alone, whole workloads, the queue; the package behind `solstice bench`."""
