"""The script that PyInstaller freezes.

A PyInstaller entry script is a top-level module, so `cortex_embed/__main__.py` cannot be
one. It must never hold behaviour of its own: what it does, `cli.main` does.
"""

from cortex_embed.cli import main

if __name__ == "__main__":
    main()
