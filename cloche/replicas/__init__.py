"""Pools of workers, for every service that has requests answered by processes it started.

`pool` dispatches, `connection` speaks HTTP to a worker's address, `health` asks whether workers are
well, `replacement` decides when one is replaced and how soon. What a worker is for, what it is
started with and what its numbers are called is the service's.
"""
