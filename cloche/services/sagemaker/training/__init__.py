"""The parts of running a training job: its request, its input, its hosts, its artifacts."""
