"""A whole platform for tests, and the contract every engine must keep."""
