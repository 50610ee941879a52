"""The parts of benchmarks/ranking.py: one file a measurement, and what they share."""
