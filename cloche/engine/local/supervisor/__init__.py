"""The process that outlives the server and looks after one gang.

It runs apart from the package, as `python -I -S`, with the standard library only and with as
little of that as it can (no `subprocess`, `typing`, `dataclasses`): it starts once for every
gang, and stays for as long as the gang runs.
"""
