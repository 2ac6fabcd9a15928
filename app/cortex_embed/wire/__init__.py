"""Published wire formats, one file each, both directions.

What a server reads and writes is what a client writes and reads, so a dialect serves our
own clients and calls remote ones. Nothing here may know HTTP, a model or the service.
"""
