"""HTTP: sockets, routes, errors as responses, start and stop.

Import it inside functions only: aiohttp costs 0.2 s. Nothing here may compute a vector or
know what a text must look like.
"""
