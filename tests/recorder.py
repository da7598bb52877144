"""An authorizer for tests: it keeps what was asked, and refuses what the test wants."""

from __future__ import annotations

import threading
from collections.abc import Callable

from cloche.core.authorization import Decision, Question


class Recorder:
    """Allows everything but the actions, and pairs of action and resource, in `denied`."""

    def __init__(self, denied: set[object] | None = None) -> None:
        self.denied: set[object] = set(denied or ())
        self.lock, self.asked = threading.Lock(), list[Question]()

    def decide(self, question: Question) -> Decision:
        with self.lock:
            self.asked.append(question)
        one = (question.action, question.resource)
        refused = question.action in self.denied or one in self.denied
        return Decision("implicitDeny" if refused else "allowed")

    def questions(self, of: Callable[[Question], bool] = lambda _: True) -> list[Question]:
        """Return what was asked since the last time, and forget it."""
        with self.lock:
            asked, self.asked = self.asked, []
        return [question for question in asked if of(question)]

    def take(self, of: Callable[[Question], bool] = lambda _: True) -> list[tuple[str, str]]:
        """Return the actions and resources that were asked about since the last time."""
        return [(question.action, question.resource) for question in self.questions(of)]


class Anything:
    """Allows everything, and keeps nothing: for tests of what lies below or beside policies."""

    def decide(self, question: Question) -> Decision:
        return Decision("allowed")
