"""The network in formats of other runtimes."""
