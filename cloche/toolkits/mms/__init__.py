"""Multi Model Server, as far as handlers use it."""
