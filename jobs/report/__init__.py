"""What the rows mean: compared, and shown. Needs neither Ray nor torch."""
