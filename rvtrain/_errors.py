"""Kinds of error that the package itself tells apart."""


class NotFiniteError(ValueError):
    """An array that must be finite holds a NaN or an infinity."""
