"""The instruments: each measures one thing about a forward pass and returns its record."""
