"""What `benchmarks/soak.py` starts: a hub that counts its tasks, a server that misbehaves, one that dies."""
