"""Policies without rules: for peers that refuse in words that the shipped rules would act upon.

What a load test or a test of the engine measures is then the engine, whatever its sink says.
"""

from collections.abc import Mapping

from mta_policies import layers


def without_rules(files: Mapping[str, str]) -> dict[str, str]:
    """The admin's policies, name -> text, with a `default` in which none of the shipped default's rules acts."""
    return {**files, layers.DEFAULT: f"{files.get(layers.DEFAULT, '')}\n{rules_off()}"}


def rules_off() -> str:
    """What a `default` says for that: a rule that takes every reply before the shipped ones, and does nothing."""
    return '\n[[rule]]\nname = "nothing-is-done"\nwhen = { code = ["4xx", "5xx"] }\nthen = []\n'
