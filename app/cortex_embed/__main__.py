"""`python -m cortex_embed`: the same program as the console script.

It must never hold behaviour of its own: what it does, `cli.main` does.
"""

from cortex_embed.cli import main

if __name__ == "__main__":
    main()
