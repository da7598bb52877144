"""The program behind `cloche up`: a small parent that holds the listening sockets, and the server
that it starts again when it dies.
"""
