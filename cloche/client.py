"""How programs of ours talk to the server: over HTTP, as any client does."""

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import quote

from cloche.core import home as homes
from cloche.core.config import Home
from cloche.core.typed import decode
from cloche.terminal import NOT_UP, Stop

ANSWER_WITHIN_S = 30.0
NOT_FOUND = 404


class AnswerError(OSError):
    """The server answered with an error."""

    def __init__(self, error: urllib.error.HTTPError) -> None:
        self.status, self.said = error.code, error.read().decode(errors="replace")
        super().__init__(f"{error.code} {error.reason}: {self.said}")


@dataclass(frozen=True, slots=True)
class Client:
    """A server that is up."""

    home: Home
    server: homes.Server

    @classmethod
    def of(cls, home: Home) -> Self:
        """Return the server of a home folder; Stop when none is up."""
        server = homes.read_server(home)
        if server is None:
            raise Stop(
                f"Cloche is not up (home folder {home.path}). {how_it_ended(home)}Start it with: "
                f"cloche up{home_option(home)}",
                code=NOT_UP,
            )
        return cls(home, server)

    def credentials(self) -> homes.OwnerKeys:
        """Return the keys that the server left for its owner."""
        path = self.home.credentials
        try:
            return decode(homes.OwnerKeys, json.loads(path.read_text()), str(path))
        except PermissionError:
            raise Stop(f"{path} can be read only by the user who started Cloche") from None

    def get(self, path: str, timeout_s: float = ANSWER_WITHIN_S) -> dict[str, Any]:
        """Return the JSON at one of the server's own paths; OSError when it does not answer."""
        return self._ask(urllib.request.Request(self.server.address + path), timeout_s)

    def status(self) -> dict[str, Any]:
        """Return how the platform is; OSError when it does not answer."""
        return self._as_owner("/_cloche/status", "GET")

    def session(self, name: str = "role") -> dict[str, Any]:
        """Return new temporary keys of a role or user (`role`: the execution role), as containers
        on AWS get them: AccessKeyId, SecretAccessKey, Token, Expiration. LookupError says whom
        there is, when there is none of that name.
        """
        try:
            return self._as_owner(f"/_cloche/session?as={quote(name, safe='')}")
        except AnswerError as error:
            if error.status != NOT_FOUND:
                raise
            raise LookupError(json.loads(error.said)["message"]) from None

    def events(self, **query: str | int) -> dict[str, Any]:
        """Return `events`, the newest first, and whether they are `complete`."""
        asked = urllib.parse.urlencode(query)
        return self._as_owner(f"/_cloche/events?{asked}", "GET")

    def suggestion(self, role: str, since_ms: int) -> dict[str, Any]:
        """Return the smallest policy for what a role did since a time, and what it has now."""
        asked = urllib.parse.urlencode({"role": role, "since_ms": since_ms})
        return self._as_owner(f"/_cloche/iam/suggestion?{asked}", "GET")

    def explanation(self, request_id: str) -> dict[str, Any]:
        """Return why IAM answered a request as it did; `last`: the last that was refused."""
        asked = urllib.parse.urlencode({"id": request_id})
        return self._as_owner(f"/_cloche/iam/explanation?{asked}", "GET")

    def findings(self) -> list[dict[str, Any]]:
        """Return what is wider, older or less safe than it needs to be."""
        found: list[dict[str, Any]] = self._as_owner("/_cloche/iam/findings", "GET")["findings"]
        return found

    def end_processes(self) -> None:
        """Have every process of user code end; the server is to go down next."""
        self._as_owner("/_cloche/end-processes")

    def _as_owner(self, path: str, method: str = "POST") -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.credentials().token}"}
        url = self.server.address + path
        request = urllib.request.Request(url, headers=headers, method=method)
        return self._ask(request, ANSWER_WITHIN_S)

    def _ask(self, request: urllib.request.Request, timeout_s: float) -> dict[str, Any]:
        # Never through a proxy that the shell may have set: it could be this server's own.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout_s) as answer:
                content: dict[str, Any] = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise AnswerError(error) from None
        return content


def answers(client: Client) -> bool:
    """Return whether the server serves."""
    try:
        return "status" in client.get("/_cloche/health", timeout_s=5.0)
    except (OSError, ValueError):
        return False


def how_it_ended(home: Home) -> str:
    """Return a sentence about the last server, when nobody asked it to end."""
    last = homes.last_server(home)
    if last is None or homes.is_held(home):
        return ""
    told = f"; its log: {last.log}" if last.log else ""
    return f"The last server was killed, or given up after it had died again and again{told}. "


def home_option(home: Home) -> str:
    """Return ` --home DIR` as commands that we print need it; nothing for the default."""
    return "" if home.path == default_home().path else f" --home {home.path}"


def default_home() -> Home:
    """Return the home folder that is used when none is named."""
    return Home(homes.default_path())
