"""Mutation testing: small faults in the sources, one at a time, each against the tests that mirror its file."""
