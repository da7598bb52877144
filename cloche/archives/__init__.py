"""Archives of users: read within bounds, unpacked by a child that can write nowhere else.

`unpacking.py` starts the child (`walk.py`), which runs apart from the package, as the supervisor
does: `python -I -S`, with the standard library only. Both it and the server read by `reader.py`.
"""
