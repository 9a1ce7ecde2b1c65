"""The scheduler: owns every request's state and the global block table."""
