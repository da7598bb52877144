"""Tuning jobs: operations, record, loop, decide; search strategies, early stopping."""
