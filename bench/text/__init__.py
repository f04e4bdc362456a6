"""Texts to measure perplexity on."""
