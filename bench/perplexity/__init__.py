"""Perplexity: windows over a text, sums of nats, and the usual mistakes."""
