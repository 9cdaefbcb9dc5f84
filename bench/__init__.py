"""Benchmarks and the evidence that needs no GPU."""
