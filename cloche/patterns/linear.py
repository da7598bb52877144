"""Python's regular expressions as RE2's, where both mean the same: then the time is linear.

What may differ is refused (`Unsure`), and runs as Python's (`worker`): look-around, references,
possessive and unknown syntax; parentheses that capture beneath a repetition or an alternative, and
repetitions of what may be empty (the captures differ); patterns that match the empty text (so do
the places where the next match is looked for). Unicode's digits, words, spaces and letter cases
are other ones in RE2: where they matter only ASCII text is searched by it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import re2

MEMORY_BYTES = 1 << 18  # of a compiled expression and what it remembers
PROGRAM = 300  # instructions; each may cost a step at each character
DEPTH = 50  # parentheses in parentheses
REPETITION = re.compile(r"\{([0-9]*)(?:(,)([0-9]*))?\}")
MOST_TIMES = 1000  # of a repetition, to RE2
GROUP_NAME = re.compile(r"\?P<([A-Za-z_][A-Za-z0-9_]*)>")
CLASSES = {  # of ASCII text alone: beyond are other cases of its letters
    "d": "0-9",
    "w": "0-9A-Za-z_",
    "s": r"\x09-\x0d\x1c-\x20",
    "D": r"\x00-/:-\x7f",
    "W": r"\x00-/:-@\[-\^`\{-\x7f",
    "S": r"\x00-\x08\x0e-\x1b!-\x7f",
}
CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v"}
ANCHORS = {"A": r"\A", "Z": r"\z", "b": r"\b", "B": r"\B"}


class Unsure(Exception):
    """The pattern may mean something else to RE2, or nothing."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A pattern that RE2 runs as Python would; `ascii`: only on ASCII text."""

    text: str
    ascii: bool
    groups: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a pattern in RE2's syntax."""

    text: str
    empty: bool = False  # it may match nothing
    captures: bool = False


def compiled(linear: Linear, *, anchored: bool = False) -> re2._Regexp:
    """Return RE2's form for bytes, `anchored` at the text's start; Unsure when it is too large."""
    options = re2.Options()
    options.max_mem = MEMORY_BYTES
    options.log_errors = False
    text = rf"\A(?:{linear.text})" if anchored else linear.text
    try:
        made = re2.compile(text.encode(), options)
    except (re2.error, UnicodeEncodeError) as error:
        raise Unsure(str(error)) from error
    if made.programsize > PROGRAM:
        raise Unsure(f"{made.programsize} instructions")
    return made


def translate(pattern: str) -> Linear:
    """Return a pattern in RE2's syntax; Unsure."""
    return PatternReader(pattern).whole()


@dataclass(slots=True)
class PatternReader:
    """Reads one pattern; `at` is where it has come to."""

    pattern: str
    at: int = 0
    fold: bool = False
    ascii: bool = False
    groups: int = 0
    names: set[str] = field(default_factory=set)

    def whole(self) -> Linear:
        """Return the whole pattern."""
        if self.pattern.startswith("(?i)"):
            self.at, self.fold, self.ascii = 4, True, True
        piece = self.alternatives(0)
        if self.at < len(self.pattern):
            raise Unsure("an unmatched closing parenthesis")
        if piece.empty:
            raise Unsure("it matches the empty text")
        return Linear(("(?i)" if self.fold else "") + piece.text, self.ascii, self.groups)

    def alternatives(self, depth: int) -> Piece:
        """Read up to the end, or to the parenthesis that closes."""
        if depth > DEPTH:
            raise Unsure("parentheses nested too deeply")
        branches = [self.sequence(depth)]
        while self.next() == "|":
            self.at += 1
            branches.append(self.sequence(depth))
        captures = any(branch.captures for branch in branches)
        if captures and len(branches) > 1:
            raise Unsure("an alternative that captures")
        text = "|".join(branch.text for branch in branches)
        return Piece(text, any(branch.empty for branch in branches), captures)

    def sequence(self, depth: int) -> Piece:
        """Read one alternative."""
        pieces: list[Piece] = []
        while self.next() not in ("", "|", ")"):
            pieces.append(self.repeated(self.atom(depth)))
        return Piece(
            "".join(piece.text for piece in pieces),
            all(piece.empty for piece in pieces),
            any(piece.captures for piece in pieces),
        )

    def next(self) -> str:
        """Return the character that is to be read; none at the end."""
        return self.pattern[self.at : self.at + 1]

    def take(self) -> str:
        """Read one character; Unsure at the end."""
        character = self.next()
        if not character:
            raise Unsure("it ends unexpectedly")
        self.at += 1
        return character

    def atom(self, depth: int) -> Piece:
        """Read what a repetition may follow."""
        character = self.take()
        if character == "(":
            return self.group(depth)
        if character == "[":
            return Piece(self.members())
        if character == "\\":
            return self.escaped()
        if character == ".":
            return Piece(".")
        if character in "^$":
            return Piece(r"\A" if character == "^" else r"\z", empty=True)
        if character in "*+?" or (
            character == "{" and REPETITION.match(self.pattern, self.at - 1) is not None
        ):
            raise Unsure("nothing to repeat")
        return Piece(self.literal(character))

    def group(self, depth: int) -> Piece:
        """Read what is in parentheses."""
        named = GROUP_NAME.match(self.pattern, self.at)
        captures = True
        if named is not None:
            if named[1] in self.names:
                raise Unsure("a name given twice")
            self.names.add(named[1])
            self.at = named.end()
        elif self.pattern.startswith("?:", self.at):
            captures = False
            self.at += 2
        elif self.next() == "?":
            raise Unsure("an extension")
        self.groups += captures
        inner = self.alternatives(depth + 1)
        if self.take() != ")":
            raise Unsure("an unclosed parenthesis")
        text = f"({inner.text})" if captures else f"(?:{inner.text})"
        return Piece(text, inner.empty, captures or inner.captures)

    def escaped(self) -> Piece:
        """Read what follows a backslash."""
        character = self.take()
        if character in CLASSES:
            self.ascii = True
            return Piece(f"[{CLASSES[character]}]")
        if character in ANCHORS:
            self.ascii = self.ascii or character in "bB"
            return Piece(ANCHORS[character], empty=True)
        return Piece(self.literal(self.meant(character)))

    def meant(self, character: str) -> str:
        """Return the character that an escape stands for."""
        if character in CONTROLS:
            return CONTROLS[character]
        if not character.isascii() or character.isalnum():
            raise Unsure(f"the escape \\{character}")
        return character

    def literal(self, character: str) -> str:
        """Return a character that stands for itself."""
        if self.fold and not character.isascii():
            raise Unsure("letter cases beyond ASCII")
        if character.isascii() and character.isalnum():
            return character
        return f"\\x{{{ord(character):x}}}"

    def members(self) -> str:
        """Read a class, in brackets."""
        negated = self.next() == "^"
        self.at += negated
        text, first = "", True
        while first or self.next() != "]":
            first = False
            low = self.member()
            if self.next() != "-" or self.pattern[self.at + 1 : self.at + 2] == "]":
                text += low if len(low) > 1 else self.literal(low)
                continue
            self.at += 1
            high = self.member()
            if len(low) > 1 or len(high) > 1 or low > high:
                raise Unsure("an invalid range")
            text += f"{self.literal(low)}-{self.literal(high)}"
        self.at += 1
        return f"[{'^' if negated else ''}{text}]"

    def member(self) -> str:
        """Read a character of a class, or what an escape like \\d stands for."""
        character = self.take()
        if character != "\\":
            return character
        character = self.take()
        if character in CLASSES:
            self.ascii = True
            return CLASSES[character]
        return self.meant(character)

    def repeated(self, piece: Piece) -> Piece:
        """Read the repetition that follows a piece, if one does."""
        character, empty = self.next(), piece.empty
        if character and character in "*+?":
            times, empty = character, empty or character in "*?"
            self.at += 1
        elif character == "{" and (found := REPETITION.match(self.pattern, self.at)) is not None:
            low, comma, high = found.groups()
            if not low and not comma:
                raise Unsure("braces without a number")
            if max(len(low), len(high or "")) > len(str(MOST_TIMES)):
                raise Unsure("a repetition that is too long")
            times = "{" + (low or "0") + (comma or "") + (high or "") + "}"
            empty = empty or int(low or 0) == 0
            self.at = found.end()
            if high and int(high) < int(low or 0):
                raise Unsure("an invalid repetition")
        else:
            return piece
        if piece.empty or piece.captures:
            raise Unsure("a repetition of what captures, or may be empty")
        if self.next() == "?":
            times += "?"
            self.at += 1
        character = self.next()
        if (character and character in "*+?") or (
            character == "{" and REPETITION.match(self.pattern, self.at) is not None
        ):
            raise Unsure("a repetition that is possessive, or repeated")
        return Piece(piece.text + times, empty)
