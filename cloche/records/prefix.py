"""Texts that begin with a prefix, as a range: so an index finds them."""


def successor(prefix: str) -> str | None:
    """Return the least text above all that begin with `prefix`; None: there is none.

    Texts compare by code point, which is the order of their UTF-8 bytes.
    """
    while prefix:
        code = ord(prefix[-1]) + 1
        if code <= 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)
        prefix = prefix[:-1]
    return None
