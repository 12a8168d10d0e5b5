"""Referring-expression comprehension on RefCOCO, RefCOCO+ and RefCOCOg."""
