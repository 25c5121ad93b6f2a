"""The machine: devices, files, object stores, memory, retries, versions."""
