"""Which models exist, where their files are, and whether they are intact.

The package must never import a runtime: it deals in files and facts.
"""
