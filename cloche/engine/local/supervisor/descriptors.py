"""Which descriptors a sandbox's programs are started with, and how its first step tells that it
stands.
"""

READY = b"cloche: ready"  # the sandbox stands; the process's own output follows
USERNS_FD, STATUS_FD = 4, 5  # where the sandbox's arguments expect them
UNDERSTUDY_FD = 6  # where the process finds its conversation with a fork server
LISTENING_FD = 7  # where it finds the socket that it is to serve
FILTER_FD = 8  # where bubblewrap finds the filter of system calls
ENVIRON_FD = 9  # where the sandbox's first step finds the command's environment
