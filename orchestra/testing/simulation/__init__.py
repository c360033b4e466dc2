"""The whole system in one process: real programs over a simulated net, disk, clock and machines."""
