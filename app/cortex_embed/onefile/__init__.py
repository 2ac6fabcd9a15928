"""What a one-file executable carries beside Python code, and how it gets at it.

Nothing here does anything in a source checkout, and nothing here may import what costs: it
runs before the first line of every command of the executable.
"""
