"""Backlog: what a server is like with a million messages waiting in it.

`deferred`: every one was deferred and waits for its time; memory a message, an idle server's CPU, new mail beside it,
commands, a restart, and the way out. `outage`: the destination is down while all of it is accepted, and comes back.
`resets`: urgent mail to a destination that has the whole backlog before it.
"""
