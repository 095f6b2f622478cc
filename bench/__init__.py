"""Benchmarks: what the library's numbers are measured with; `python -m bench --help`."""
