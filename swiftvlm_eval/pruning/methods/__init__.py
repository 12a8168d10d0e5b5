"""The pruning methods, one class a file, named as in their papers.

A file in this folder is a registered method (`pruning.registry`): its name is the method's name everywhere.
"""
