"""
Chaos: a real server, real workers and real clients, to be killed, frozen, cut off and starved; and what they have to hold to meanwhile.

Every process is one of its own, every byte goes over a socket, every commit onto a file system. What clients were told is written down by
them before they ask again, and is held against what the server tells after all is healed.
"""
