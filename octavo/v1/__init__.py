"""Generated from protos/octavo/v1 by `make protos`; never edited."""
