"""Side by side with a peer in one run: `python -m benchmarks NAME [--json FILE]`."""
