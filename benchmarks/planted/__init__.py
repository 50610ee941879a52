"""The parts of benchmarks/curation.py: folders with planted faults, scores that look for them, and the figure."""
