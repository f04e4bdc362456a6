"""What `gpu_check.py` is made of: steps, each a process of its own, and predictions."""
