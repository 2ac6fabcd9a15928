"""The bodies of the subcommands, one module each, imported only when its command runs."""
