"""The benchmark against other ways of training the same network: `python -m benchmarks.peers --help`."""
