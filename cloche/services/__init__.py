"""The AWS services, side by side: none imports what is inside another."""
