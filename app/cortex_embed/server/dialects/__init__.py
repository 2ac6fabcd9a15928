"""The routes of each dialect, one file each: paths, handlers, what the API page says.

`wire/` knows what a body means, these files know where it is sent. Nothing here may decode or
encode by itself, and no file here may import another.
"""
