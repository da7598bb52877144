"""Training jobs: operations, record, loop, decide; their input, hosts, checkpoints and outcome."""
