"""Measures a decoder on the device in front of it; needs neither Ray nor a cluster."""

__version__ = "0.1.0"
