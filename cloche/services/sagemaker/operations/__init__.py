"""Verbs: validate, write wishes, read records."""
