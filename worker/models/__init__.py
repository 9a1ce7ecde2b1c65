"""Model architectures: what a checkpoint says about a model, and the decoder that runs it."""
