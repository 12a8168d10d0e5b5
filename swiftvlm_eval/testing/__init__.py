"""Checks that every pruning method must pass, for methods of this package and for those from outside it."""

from swiftvlm_eval.testing.check_method import MethodCheckError, check_method

__all__ = ["MethodCheckError", "check_method"]
