"""From any conversion to a record set on disk: what every converter shares."""
