"""The one exception for what a user can mend."""


class ConfigurationError(ValueError):
    """A setting, file or folder that cannot work; the message says in one sentence what to change.

    The command line prints the message alone, without a traceback.
    """
