"""The decisions: how fast, how many at once, when again, when never. Pure, and knows not how mail travels.

`load` reads the shipped policies and an admin's own; a `PolicySet` finds the one that a domain or a set of MX
hosts belongs to; a `Meter` keeps one level of limits; `retry` plans the next attempt. Time and chance come in
as arguments.
"""
