"""What every layer may use: errors, names, time, identity, settings. Imports nothing of Cloche."""
