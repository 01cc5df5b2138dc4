"""What `benchmarks/direct_call.py` starts and measures with: a stub server, a bare relay, a load generator."""
