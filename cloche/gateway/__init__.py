"""HTTP bytes <-> Call: identify, authorize, parse, handle, serialize."""
