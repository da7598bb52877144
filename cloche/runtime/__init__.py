"""Code that runs inside user processes. Imports nothing of the platform."""
