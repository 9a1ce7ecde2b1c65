"""The router: ends client streams; text on one side, token ids on the other."""
