"""The benchmark: `python -m tests.bench` prints CPU, latency and cancel latency beside HAProxy, as ratios.

The method: upstream and load are compiled (`rig/`) and run on one core, the whole process tree of the target under
test on another. Targets take turns in every round, so that what the machine does meanwhile hits all of them.
"""
