"""Which packages stand behind a framework's images: the table, what users add, building.

Used by the server (it looks up what is ready) and by `cloche image` (it builds and adds), each by
itself: they meet in files below the home folder only, so either works without the other.
"""
