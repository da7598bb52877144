"""The error that the tour shows without a traceback: it says what is wrong and what to do."""


class TourError(Exception):
    """Something the reader can act on; the text stands for itself."""
