"""What turns frozen bundles into a release, one module a step; nox sessions call them.

    python -m release.package   (with build/ on the path)

Nothing here may know a platform by heart: what differs between them is in build/targets.toml.
"""


class ReleaseError(Exception):
    """A release cannot be made of what is there; the message says what, and the way out."""
