"""The error that ends a command with a message instead of a traceback."""


class DataError(Exception):
    """Data are missing or unusable; the text says what, where, and what to do."""
