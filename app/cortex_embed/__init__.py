"""cortex-embed: one file that turns text into vectors.

This module exists to carry the version. It must never import anything else:
`cortex-embed --version` pays for every line here.
"""

__version__ = "0.1.0"
