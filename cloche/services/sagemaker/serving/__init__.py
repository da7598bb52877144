"""Models, endpoint configurations and endpoints: operations, record, loop, decide; replicas."""
