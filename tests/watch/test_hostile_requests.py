"""Nothing but the runs is served, and only to our own page, whatever is sent."""

import os
import re
import socket

import pytest
from watched_page import Page, all_of, make_run, parts_of

from edge_train.watch import server as serving

SECRET = b"this lies outside of the runs"
RUN = "/run/dog"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page over runs beside which secrets lie, with everything that could lead to them."""
    place = tmp_path_factory.mktemp("place")
    (place / "secret").mkdir()
    (place / "secret" / "report.html").write_bytes(SECRET)
    (place / "secret" / "journal.jsonl").write_bytes(SECRET)
    (place / "secret.png").write_bytes(SECRET)
    root = place / "runs"
    run = make_run(root / "dog")
    (run / "samples" / "link.png").symlink_to(place / "secret.png")
    (run / "samples" / "notes.txt").write_bytes(SECRET)
    (run / "samples" / "sub.png").mkdir()
    (run / "plan.json").write_bytes(SECRET)
    (run / "lock").write_bytes(SECRET)
    os.mkfifo(run / "samples" / "pipe.png")
    linked = make_run(root / "linked")
    (linked / "report.html").unlink()
    (linked / "report.html").symlink_to(place / "secret" / "report.html")
    device = make_run(root / "device")
    (device / "report.html").unlink()
    (device / "report.html").symlink_to("/dev/zero")
    away = make_run(root / "away")
    (away / "samples" / "after-01.png").unlink()
    (away / "samples").rmdir()
    (away / "samples").symlink_to(place)
    (root / "out").symlink_to(place / "secret")
    (root / "plain").mkdir()
    (root / "plain" / "report.html").write_bytes(SECRET)
    with Page(root) as page:
        yield page


PATHS = [
    "/../secret/report.html",
    "/run/../secret/report.html",
    "/run/..%2fsecret/report.html",
    "/run/%2e%2e/report.html",
    "/run/%2e%2e%2fsecret/report.html",
    "/run/..%5csecret/report.html",
    "/run/%252e%252e/report.html",
    "/run/%c0%ae%c0%ae/report.html",
    "/run/./report.html",
    "/run//report.html",
    "/run/dog/../../secret/report.html",
    "/run/dog%2f..%2f..%2fsecret/report.html",
    "/run/dog%00/report.html",
    "/run/dog%/report.html",
    "/run/dog%zz/report.html",
    "/run/%2fetc/report.html",
    "//etc/passwd",
    "http://127.0.0.1/etc/passwd",
    "/run/out/report.html",
    "/run/out/data",
    "/run/plain/report.html",
    "/run/nobody/report.html",
    "/run/linked/report.html",
    "/run/device/report.html",
    "/run/away/samples/secret.png",
    f"{RUN}/samples/link.png",
    f"{RUN}/samples/pipe.png",
    f"{RUN}/samples/sub.png",
    f"{RUN}/samples/notes.txt",
    f"{RUN}/samples/..%2fplan.json",
    f"{RUN}/samples/..%2f..%2f..%2fsecret.png",
    f"{RUN}/samples/",
    f"{RUN}/samples",
    f"{RUN}/plan.json",
    f"{RUN}/lock",
    f"{RUN}/recipe.toml",
    f"{RUN}/journal.jsonl",
    f"{RUN}/checkpoints/",
    f"{RUN}/report.html?x=1",
    f"{RUN}/report.html/",
    f"{RUN}/",
    RUN,
    "/page.html",
    "/gate.py",
    "/page.js/..%2fgate.py",
    "*",
]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_outside_the_known_files_of_a_run_is_served(page, path):
    refused = page.site.refused
    status, _, body = page.ask(path)
    assert 400 <= status < 500
    assert SECRET not in body and b"root:" not in body
    assert page.site.refused == refused + 1


def test_what_is_asked_for_honestly_is_served(page):
    assert page.ask(f"{RUN}/report.html")[2] == b"<p>the report</p>"
    assert page.ask(f"{RUN}/samples/after-01.png")[2] == b"\x89PNG picture"
    assert page.data(f"{RUN}/data")["steps"] == 5
    assert {run["name"] for run in page.data("/runs")["runs"]} == {
        "dog",
        "linked",
        "device",
        "away",
    }


def head(*lines, first="GET /runs HTTP/1.1"):
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1")


HOST = "Host: 127.0.0.1"
REQUESTS = {
    "no host": (head(), 403),
    "another name": (head("Host: evil.example"), 403),
    "a name that begins with ours": (head("Host: localhost.evil.example:8765"), 403),
    "an address of another machine": (head("Host: 192.168.1.9"), 403),
    "two hosts": (head(HOST, "Host: evil.example"), 400),
    "another site": (head(HOST, "Origin: http://evil.example"), 403),
    "a frame without an origin": (head(HOST, "Origin: null"), 403),
    "another port of this machine": (head(HOST + ":80", "Origin: http://127.0.0.1:81"), 403),
    "a method to write": (head(HOST, first="PUT /runs HTTP/1.1"), 405),
    "a method to remove": (head(HOST, first="DELETE /run/dog HTTP/1.1"), 405),
    "a proxy's method": (head(HOST, first="CONNECT a:80 HTTP/1.1"), 405),
    "a trace": (head(HOST, first="TRACE / HTTP/1.1"), 405),
    "no version": (b"GET /runs\r\n\r\n", 400),
    "a later version": (head(HOST, first="GET / HTTP/2.0"), 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    "a header without a name": (head(HOST, ": x"), 400),
    "a folded header": (head(HOST, "X: y", " z"), 400),
    "a control in a header": (head(HOST, "X: \x00"), 400),
    "a bare line feed": (b"GET /runs HTTP/1.1\nHost: 127.0.0.1\r\n\r\n", 400),
    "a huge header": (head(HOST, "X: " + "y" * 9000), 431),
    "many headers": (head(HOST, *(f"X{n}: y" for n in range(2000))), 431),
    "a head without an end": (b"GET /" + b"a" * 20_000, 431),
    "a long address": (head(HOST, first=f"GET /{'a' * 2000} HTTP/1.1"), 414),
    "a large body": (head(HOST, "Content-Length: 99999", first="POST /login HTTP/1.1"), 413),
    "a length below zero": (head(HOST, "Content-Length: -1", first="POST /login HTTP/1.1"), 400),
    "a length in other digits": (head(HOST, "Content-Length: 1_0"), 400),
    "two lengths": (head(HOST, "Content-Length: 0", "Content-Length: 5"), 400),
    "a body in pieces": (head(HOST, "Transfer-Encoding: chunked"), 400),
    "two requests at once": (head(HOST) + head(HOST), 400),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_no_page_of_ours_sends_is_refused(page, name):
    request, status = REQUESTS[name]
    found, _, body = parts_of(page.raw(request))
    assert found == status
    assert b"token" not in body


@pytest.mark.parametrize(
    "changed",
    [
        {"X_Token": None},
        {"X_Token": ""},
        {"X_Token": "0" * 32},
        {"X_Token": "z" * 32},
        {"Origin": None},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
    ],
)
@pytest.mark.parametrize("what", ["stop", "resume"])
def test_nothing_is_stopped_or_resumed_for_another_site(page, what, changed, monkeypatch):
    done = []
    monkeypatch.setattr(page.runs, what, done.append)
    assert page.ask(f"{RUN}/{what}", "POST", **changed)[0] == 403
    assert done == []
    assert page.ask(f"{RUN}/{what}", "POST")[0] == 200
    assert done == ["dog"]


@pytest.mark.parametrize("what", ["stop", "resume"])
def test_a_link_never_stops_or_resumes_anything(page, what, monkeypatch):
    done = []
    monkeypatch.setattr(page.runs, what, done.append)
    assert page.ask(f"{RUN}/{what}")[0] == 404
    assert done == []


def test_answers_cannot_be_framed_kept_or_guessed(page):
    for path in ("/", "/runs", f"{RUN}/report.html", "/nothing"):
        head = page.ask(path)[1]
        for words in ("nosniff", "no-store", "default-src 'none'", "frame-ancestors 'none'"):
            assert words in head, path
        assert "Access-Control" not in head
    assert "sandbox" in page.ask(f"{RUN}/report.html")[1]  # a report may be somebody else's


@pytest.fixture
def guarded(tmp_path):
    make_run(tmp_path / "dog")
    with Page(tmp_path, host="0.0.0.0") as page:
        yield page


def password_of(page):
    return page.said[-1].rpartition(" ")[2]


@pytest.mark.parametrize("path", ["/runs", "/page.js", f"{RUN}/data", f"{RUN}/report.html"])
@pytest.mark.parametrize("cookie", [None, "", "{name}=", "{name}=0"])
def test_without_the_password_nothing_is_shown(guarded, path, cookie):
    cookie = cookie and cookie.format(name=f"edge_train_watch_{guarded.port}")
    assert guarded.ask(path, Cookie=cookie)[0] == 401
    status, _, body = guarded.ask("/", Cookie=cookie)
    assert status == 401 and b"password" in body and b"page.js" not in body
    token = {"X_Token": guarded.gate.token, "Cookie": cookie}
    assert guarded.ask(f"{RUN}/stop", "POST", **token)[0] == 401


@pytest.mark.parametrize(
    "given", ["", "password=", "password=wrong", "password={half}", "x={whole}"]
)
def test_a_wrong_password_opens_nothing(guarded, given):
    right = password_of(guarded)
    body = given.format(half=right[:7], whole=right)
    status, head, _ = guarded.ask("/login", "POST", body, X_Token=None)
    assert status == 403 and "Set-Cookie" not in head


def test_a_password_is_good_for_one_browser(guarded):
    first = f"password={password_of(guarded)}"
    status, head, _ = guarded.ask("/login", "POST", first, X_Token=None)
    assert status == 303
    assert "HttpOnly; SameSite=Strict" in head
    cookie = re.search("Set-Cookie: ([^;]+)", head)[1]
    assert guarded.ask("/runs", Cookie=cookie)[0] == 200
    assert guarded.ask("/runs", Cookie=f"a=b; {cookie}")[0] == 200
    assert guarded.ask("/login", "POST", first, X_Token=None)[0] == 403
    assert f"password={password_of(guarded)}" != first


def test_another_site_cannot_use_the_password(guarded):
    body = f"password={password_of(guarded)}"
    asked = guarded.ask("/login", "POST", body, Origin="http://evil.example", X_Token=None)
    assert asked[0] == 403
    assert guarded.ask("/login", "POST", body, X_Token=None)[0] == 303


def test_with_a_host_the_page_answers_to_addresses_and_its_names(guarded):
    for host in ("192.168.1.9:8765", "[fe80::1]:8765", os.uname().nodename):
        assert guarded.ask("/", Host=host)[0] == 401
    assert guarded.ask("/", Host="evil.example")[0] == 403


def test_slow_clients_and_many_connections_hold_nobody_up(page):
    ends = [page.connect() for _ in range(3 * serving.MOST_CONNECTIONS)]
    try:
        for end in ends[-10:]:
            end.sendall(b"GET /runs HT")
        assert page.ask("/runs")[0] == 200
        assert all_of(ends[0]) == b""  # it made room for others
    finally:
        for end in ends:
            end.close()
    assert page.ask("/runs")[0] == 200


def test_who_never_ends_a_request_is_hung_up_on(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "REQUEST_SECONDS", 0.0)
    with Page(tmp_path) as page, page.connect() as end:
        assert all_of(end) == b""


def test_who_does_not_take_an_answer_is_no_trouble(page):
    with page.connect() as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        end.sendall(head(HOST))
    assert page.ask("/runs")[0] == 200
