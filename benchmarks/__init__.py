"""Benchmarks: ratios from interleaved rounds, on whatever machine they run."""
