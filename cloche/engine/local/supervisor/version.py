"""The version of all that outlives an upgrade of this engine."""

# Of plan.json, state.json, exit records and the control socket's messages. An engine reads those of
# supervisors that an older release started, and refuses a newer one's.
# 2: records name their version; a process's socket lies in the run directory; the message `watch`.
VERSION = 2
