"""Search strategies and stopping rules of tuning jobs. Pure: no clock, database or process."""
