"""The device in front of us: its driver, its type, what it can do, what disturbs it."""
