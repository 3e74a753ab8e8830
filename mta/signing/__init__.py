"""DKIM: canonical form, keys, and the helper processes that sign what leaves."""
