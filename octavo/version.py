"""The version of this release, and of the protocol its processes speak with one another."""

VERSION = "0.1.0"

PROTOCOL_VERSION = 2
"""Told in every handshake. A change that an older process would misread raises it."""
