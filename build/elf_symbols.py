"""The symbol table of a shared library, blanked where it lies.

For libraries that auditwheel has put into a wheel's *.libs: `strip` would move what patchelf has
placed, and break them. Bytes that are all alike take no room in a .gz. It must never change a
section that is loaded, nor the length of anything.
"""

from __future__ import annotations

import struct

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_SYMTAB = 2  # SHT_SYMTAB: not what the dynamic linker reads, which is SHT_DYNSYM
_ALLOC = 2  # SHF_ALLOC
_SECTION = struct.Struct("<IIQQQQIIQQ")  # Elf64_Shdr (System V ABI, chapter 4)


def blanked(library: bytes) -> bytes:
    """`library` with zeros for its symbol table and that table's names; as it is if it has none.

    Raises ValueError for what is no 64-bit little-endian ELF file.
    """
    if not library.startswith(_MAGIC):
        raise ValueError("this is no 64-bit little-endian ELF file")
    found = bytearray(library)
    try:
        (table,) = struct.unpack_from("<Q", found, 40)
        size, count = struct.unpack_from("<HH", found, 58)
        sections = [_SECTION.unpack_from(found, table + i * size) for i in range(count)]
        symbols = [section for section in sections if section[1] == _SYMTAB]
        names = [sections[section[6]] for section in symbols]
    except (struct.error, IndexError, OverflowError) as why:
        raise ValueError(f"its section headers cannot be read: {why}") from None
    for _, _, flags, _, offset, length, *_ in (*symbols, *names):
        if flags & _ALLOC or offset + length > len(found):
            raise ValueError("its symbol table is loaded, or lies behind the end")
        found[offset : offset + length] = bytes(length)
    return bytes(found)
