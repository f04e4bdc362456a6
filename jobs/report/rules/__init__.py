"""Rules: each a function from a Group to the findings that its rows show, most of them none."""
