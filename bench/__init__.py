"""Benchmarks: what is measured, never asserted. Each is a package of its own, run as `python -m bench.NAME`."""
