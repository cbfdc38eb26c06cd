"""Faults: workers are killed while programs work on their mounts."""
