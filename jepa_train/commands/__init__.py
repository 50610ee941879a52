"""The command line behind ``train.py``: parsing, what a command starts from, and its one-sentence errors."""
