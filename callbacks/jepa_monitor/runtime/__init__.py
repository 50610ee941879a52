"""How a measurement lives inside a run: encoder, processes, isolation, budget, loggers."""
