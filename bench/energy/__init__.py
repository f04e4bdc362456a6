"""Energy of a request: which meter there is, how it is polled, and what its ticks tell."""
