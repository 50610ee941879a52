"""The studies of benchmarks/studies.py: one file a question, and what they share."""
