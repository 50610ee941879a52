"""The parts of benchmarks/detection.py: sets of images, readings of encoders, methods, comparison, page."""
