"""Tables and result files that somebody else made, as their authors wrote them."""
