"""Exceptions whose message is all that a user needs: the command line prints it alone, without a traceback."""


class ConfigurationError(ValueError):
    """A setting, file or folder that cannot work; the message says in one sentence what to change."""


class RunFailed(RuntimeError):
    """A run that failed on its way; the message says in one sentence what happened and what to do."""
