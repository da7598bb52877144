"""Pages of other sites, in the browser of who runs Cloche; and objects that are opened there."""

import http.client
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from cloche.testing.platform import Platform

NAMED = "At 0e393ec the answer named home folder, account and region."
SHOWN = "At 0e393ec the object came with neither header: a browser ran its script at this address."
PAGE = (
    b"<script>fetch('/_cloche/status').then(r => r.text()).then(t => location = '//evil')</script>"
)


class Answer:
    """What a request got."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = answer.status, answer.headers, answer.read()


def ask(
    platform: Platform,
    path: str,
    method: str = "GET",
    body: bytes = b"",
    host: str | None = None,
    **headers: str,
) -> Answer:
    """Send a request as a browser does; `host` is the name in its address bar."""
    where = urlsplit(platform.address)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", where.netloc if host is None else host)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def token(platform: Platform) -> str:
    """Return the owner's token as a header."""
    return f"Bearer {json.loads(platform.home.credentials.read_text())['token']}"


def sessions(platform: Platform) -> int:
    """Return how many sessions the platform has given out."""
    return len(platform.app.store.each("session"))


def signed(platform: Platform, path: str, keys: Mapping[str, str], method: str) -> dict[str, str]:
    """Return the headers of a request that is signed with these keys."""
    request = AWSRequest(method=method, url=platform.address + path)
    SigV4Auth(key_pair(keys), "cloche", "us-east-1").add_auth(request)
    return {name.replace("-", "_"): str(value) for name, value in request.headers.items()}


def key_pair(keys: Mapping[str, str]) -> Credentials:
    return Credentials(
        keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], keys.get("AWS_SESSION_TOKEN")
    )


def tells_nothing(platform: Platform, answer: Answer) -> bool:
    """Whether the answer refuses, and has nothing in it that is the owner's to know."""
    home = str(platform.home.path).encode()
    account = platform.app.config.account.encode()
    return answer.status == 403 and home not in answer.body and account not in answer.body


@pytest.mark.control(NAMED)
def test_status_is_not_for_everybody(platform: Platform) -> None:
    assert tells_nothing(platform, ask(platform, "/_cloche/status"))
    shown = json.loads(ask(platform, "/_cloche/status", Authorization=token(platform)).body)
    assert shown["home"] == str(platform.home.path)  # the owner sees it


@pytest.mark.control("At 0e393ec health named account, region and services too.")
def test_health_says_only_that_it_is_up(platform: Platform) -> None:
    shown = json.loads(ask(platform, "/_cloche/health").body)
    assert set(shown) == {"status", "version"}


@pytest.mark.control(NAMED)
@pytest.mark.parametrize("site", ["https://evil.example", "null", "http://localhost:8888"])
def test_another_sites_page_learns_nothing(platform: Platform, site: str) -> None:
    for path in ("/_cloche/status", "/_cloche/health"):
        answer = ask(platform, path, Origin=site)
        assert tells_nothing(platform, answer)
        assert b"version" not in answer.body
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.control("At 0e393ec a session was made: Origin was looked at nowhere.")
def test_a_page_of_another_port_gets_no_keys_even_with_the_token(platform: Platform) -> None:
    # A notebook's page is same-site with this address; it is another origin all the same.
    port = urlsplit(platform.address).port
    before = sessions(platform)
    for origin in ("http://127.0.0.1:8888", f"http://localhost:{port}", "http://127.0.0.1"):
        answer = ask(
            platform, "/_cloche/session", "POST", Origin=origin, Authorization=token(platform)
        )
        assert tells_nothing(platform, answer)
    assert sessions(platform) == before
    own = ask(
        platform,
        "/_cloche/session",
        "POST",
        Origin=platform.address,
        Authorization=token(platform),
    )
    assert own.status == 200 and sessions(platform) == before + 1


@pytest.mark.control(NAMED)
@pytest.mark.parametrize(
    "name",
    [
        *("evil.example", "evil.example:4599", "127.0.0.1.evil.example", "localhost.evil.example"),
        *("127.0.0.1, evil.example", "a@127.0.0.1", "127.0.0.1:1:2", "notlocalhost", "[x]", ""),
    ],
)
def test_a_rebound_name_learns_nothing(platform: Platform, name: str) -> None:
    for path in ("/_cloche/status", "/_cloche/health"):
        answer = ask(platform, path, host=name, Authorization=token(platform))
        assert tells_nothing(platform, answer) and b"version" not in answer.body
    for own in ("localhost", "console.localhost:4601", "127.0.0.1:4599", "[::1]:80", "LOCALHOST."):
        assert ask(platform, "/_cloche/health", host=own).status == 200


@pytest.mark.control("With the token the same POST makes a session: test_a_page_of_another_port…")
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("path", ["/_cloche/end-processes", "/_cloche/session"])
def test_a_simple_post_does_nothing(platform: Platform, path: str, kind: str) -> None:
    before = sessions(platform)
    body = json.dumps({"token": "guess"}).encode()
    for headers in ({}, {"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        answer = ask(platform, path, "POST", body, Content_Type=kind, **headers)
        assert tells_nothing(platform, answer)
    assert sessions(platform) == before and not platform.app.reconciling.done()


@pytest.mark.control("At 0e393ec health answered whatever Sec-Fetch-Site said.")
@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_a_request_that_a_browser_says_is_foreign_is_refused(platform: Platform, site: str) -> None:
    assert tells_nothing(platform, ask(platform, "/_cloche/health", Sec_Fetch_Site=site))


@pytest.mark.control("At 0e393ec 404 said which paths there are, and 403 those that are there.")
def test_nobody_learns_which_paths_there_are(platform: Platform) -> None:
    answers = {
        path: ask(platform, f"/_cloche/{path}").body.replace(f"/{path}".encode(), b"")
        for path in ("nothing", "session", "status", "credentials", "end-processes")
    }
    assert len(set(answers.values())) == 1


@pytest.mark.control("Signed by root the same request is obeyed (checked below).")
def test_a_roles_keys_end_nobodys_processes(platform: Platform) -> None:
    role, before = platform.environment(), sessions(platform)
    for path in ("/_cloche/end-processes", "/_cloche/session"):
        headers = signed(platform, path, role, "POST")
        assert tells_nothing(platform, ask(platform, path, "POST", **headers))
    assert sessions(platform) == before and not platform.app.reconciling.done()
    headers = signed(platform, "/_cloche/session", platform.environment("root"), "POST")
    assert ask(platform, "/_cloche/session", "POST", **headers).status == 200


@pytest.mark.control("Signed by headers the same request is answered (checked below).")
def test_a_link_and_a_wrong_signature_open_nothing(platform: Platform) -> None:
    role = platform.environment()
    link = AWSRequest(method="GET", url=f"{platform.address}/_cloche/status")
    SigV4QueryAuth(key_pair(role), "cloche", "us-east-1").add_auth(link)
    path = str(link.url).removeprefix(platform.address)
    assert tells_nothing(platform, ask(platform, path))
    forged = signed(platform, "/_cloche/status", {**role, "AWS_SECRET_ACCESS_KEY": "x"}, "GET")
    assert tells_nothing(platform, ask(platform, "/_cloche/status", **forged))
    honest = signed(platform, "/_cloche/status", role, "GET")
    assert ask(platform, "/_cloche/status", **honest).status == 200


def shown(platform: Platform, content_type: str, **override: str) -> Answer:
    """Open an object by a link, as a browser does."""
    s3 = platform.client("s3")
    if "pages" not in {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket="pages")
    s3.put_object(Bucket="pages", Key="page", Body=PAGE, ContentType=content_type)
    asked = {"Bucket": "pages", "Key": "page", **override}
    url = urlsplit(s3.generate_presigned_url("get_object", Params=asked))
    answer = ask(platform, f"{url.path}?{url.query}", host=url.netloc)
    assert (answer.status, answer.body) == (200, PAGE)
    return answer


@pytest.mark.control(SHOWN)
@pytest.mark.parametrize(
    "kind",
    [
        *("text/html", "TEXT/HTML; charset=utf-8", "image/svg+xml", "application/xhtml+xml"),
        *("text/xml", "application/xml", "application/atom+xml", "text/plain, text/html", "x"),
        *("text/plain; x=1, text/html", "text/xsl", "multipart/x-mixed-replace; boundary=b"),
    ],
)
def test_an_object_runs_no_script_at_this_address(platform: Platform, kind: str) -> None:
    answer = shown(platform, kind)
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.control(SHOWN)
def test_a_link_that_makes_an_object_a_page_runs_no_script(platform: Platform) -> None:
    answer = shown(platform, "image/png", ResponseContentType="text/html")
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["content-security-policy"] == "sandbox"


@pytest.mark.control("At 0e393ec without nosniff a browser guessed the kind from the first bytes.")
@pytest.mark.parametrize("kind", ["text/plain", "image/png", "binary/octet-stream", "video/mp4"])
def test_a_page_under_another_kind_is_not_guessed_to_be_one(platform: Platform, kind: str) -> None:
    answer = shown(platform, kind)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] is None  # pictures and films are shown whole


@pytest.mark.control(SHOWN)
def test_an_error_that_repeats_what_was_asked_runs_no_script(platform: Platform) -> None:
    answer = ask(platform, "/pages/%3Cscript%3Ealert(1)%3C/script%3E")
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
