"""Filter patterns of terms: `ERROR`, `"two words"`, `?either ?or`, `-not`.

As CloudWatch Logs has them (user guide, "Filter pattern syntax", unstructured log events): all
terms must occur, upper and lower case count; of terms with `?` one must occur, and they are
ignored where other terms are given. JSON, space-delimited and %regex% patterns are refused.
"""

import re
from dataclasses import dataclass

from cloche.core.errors import AwsError, unsupported

TERM = re.compile(r'\s*([?-]?)(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))(?=\s|$)')
PLAIN = re.compile(r"[\w.*:/=@#$^&,;]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pattern:
    """What must occur in a message, what may, and what must not."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    def matches(self, text: str) -> bool:
        """Tell whether a message fits."""
        if self.required or self.excluded:
            return all(term in text for term in self.required) and not any(
                term in text for term in self.excluded
            )
        return not self.optional or any(term in text for term in self.optional)


def parse_pattern(text: str) -> Pattern:
    """Return the pattern; InvalidParameterException for what can't be understood."""
    stripped = text.strip()
    for first, what in (
        ("{", "JSON filter patterns ({ $.field = … })"),
        ("[", "space-delimited filter patterns ([field, …])"),
        ("%", "regular expressions in filter patterns (%…%)"),
    ):
        if stripped.startswith(first):
            raise unsupported(what, "Use terms, or filter the events that are returned.")
    terms: dict[str, list[str]] = {"": [], "?": [], "-": []}
    place = 0
    while place < len(stripped):
        found = TERM.match(stripped, place)
        if found is None:
            raise AwsError("InvalidParameterException", "Invalid filter pattern")
        sign, quoted, plain = found.groups()
        if plain is not None and not PLAIN.fullmatch(plain):
            message = f"Invalid character(s) in term '{plain}'"
            raise AwsError("InvalidParameterException", message)
        terms[sign].append(plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
        place = found.end()
    return Pattern(tuple(terms[""]), tuple(terms["?"]), tuple(terms["-"]))
