"""The script that PyInstaller freezes.

A PyInstaller entry script is a top-level module, so `cortex_embed/__main__.py` cannot be
one. It must never hold behaviour of its own: what it does, `cli.main` does.
"""

from cortex_embed.onefile.start import prepare

if __name__ == "__main__":
    prepare()
    # Only now: what the command line imports may be among what `prepare` makes findable.
    from cortex_embed.cli import main

    main()
