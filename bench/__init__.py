"""Benchmarks: each measures against a peer, or a limit, in the same interleaved run."""
