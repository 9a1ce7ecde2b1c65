"""The REST gateway: HTTP, SSE and JSON in front of the router; no state between requests."""
