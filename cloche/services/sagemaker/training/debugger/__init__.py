"""Rules of the Debugger and the profiler: what they judge, in which sandbox, what they report."""
