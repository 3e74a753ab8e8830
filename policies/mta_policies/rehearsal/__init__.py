"""Rehearsal: recorded or invented mail goes through the policies on a clock of its own. Pure.

The rules, limits, recoveries and retries are those that the server runs. Not the server's are only who speaks and who
answers: connections take a stated time, and the providers answer as they did (`recorded`) or as a model of them would.
"""
