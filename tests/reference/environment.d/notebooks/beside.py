"""Lies beside the notebook, and warns of what calls it: by the path of this file."""

import warnings


def title(rate):
    warnings.warn("this title is short")
    return f"rate {rate}"
