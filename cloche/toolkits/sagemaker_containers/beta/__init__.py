"""Where the toolkit kept its interface."""
