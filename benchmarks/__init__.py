"""The speed table, measured: `python -m benchmarks`."""
