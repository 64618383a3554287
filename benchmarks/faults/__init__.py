"""Faults on purpose: `python -m benchmarks.faults` does to runs what machines do to them."""
