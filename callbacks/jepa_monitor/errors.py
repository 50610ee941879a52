"""The exception for a setting that can never work."""


class SettingError(ValueError):
    """A setting of a callback that can never work; the message says in one sentence what to change.

    It is raised before anything is trained or measured, whatever ``on_error`` says: that is for what may heal.
    """
