"""The worker: one process per device; does what the plan says, decides nothing."""
