"""Measures and rules behind ``benchmarks/selection.py``: which checkpoint of a run is the one to keep."""
