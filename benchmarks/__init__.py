"""Measurements on real servers. `python -m benchmarks --help` lists them; ratios are taken within one run."""
