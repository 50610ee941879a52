"""The surroundings of a measurement inside a run: encoder, processes, isolation, budget, schedule, loggers."""
