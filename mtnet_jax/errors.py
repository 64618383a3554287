"""Errors that several rooms raise and catch."""


class BadRecord(ValueError):
    """A record whose content breaks the schema; the message names the picture and the field."""
