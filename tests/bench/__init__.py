"""Speed beside peers: `make bench`, or `python -m bench` with tests/ on the path.

A *contender* is a file system that is measured: the native one, a peer, or fused.  A *row* is what
a client does with it.  Every contender is mounted for the whole run, every row is measured in
rounds in which the contenders take turns, and what is compared are medians.
"""
