"""Exceptions that the package itself catches."""


class NotFiniteError(ValueError):
    """An array that must be finite holds a NaN or an infinity."""
