"""What the commands print, and how they end."""

from cloche.terminal import NOT_UP, Stop, count, err, out, size

__all__ = ("NOT_UP", "Stop", "count", "err", "out", "size")
