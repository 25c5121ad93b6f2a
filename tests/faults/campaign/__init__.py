"""Break everything at random moments and count what is left: `make faults`, or `python -m tests.faults.campaign`."""
