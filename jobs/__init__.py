"""What a person types or submits, and what the results mean; the only part that knows click."""
