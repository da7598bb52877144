"""Make the wishes true."""
