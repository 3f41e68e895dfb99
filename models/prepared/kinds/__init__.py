"""The kinds of models: what each checks, how it is recognized in the cache, and how it is made.

``kind.py`` says what a kind is; each other file is one; ``table.py`` finds the kind of a model.
"""
