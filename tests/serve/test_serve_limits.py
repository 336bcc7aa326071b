"""What may come in: size, depth, shape, keys, names; and that nothing refused comes back in an answer or a log."""

import json
import logging
import socket
import time

import httpx
import pytest

from guardreasoner.errors import ConfigError
from guardreasoner.serve.access.keys import check_exposure, is_loopback, names_for, read_keys
from guardreasoner.serve.access.limits import Refused
from guardreasoner.serve.access.log import log, redact
from patience import PATIENCE
from serve.running import Served, serving

PLANTED = "zebra-quartz-7141"
KEYS = read_keys({"GUARDREASONER_API_KEYS": "one=0123456789abcdef"})


def raw(served: Served, *contents: bytes, timeout: float = PATIENCE) -> bytes:
    with socket.create_connection(("127.0.0.1", served.port), timeout=timeout) as sock:
        for content in contents:
            sock.sendall(content)
            time.sleep(0.1)
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
        return b"".join(parts)


def post(served: Served, content: bytes | str, **headers: str) -> httpx.Response:
    return served.http.post("/v1/judge", content=content, headers={"content-type": "application/json", **headers})


BAD_BODIES = {
    "not json": f'{{"prompt": "{PLANTED}"',
    "not utf-8": b'{"prompt": "' + PLANTED.encode() + b'\xff"}',
    "empty": "",
    "a list": json.dumps([PLANTED]),
    "a wrong type": json.dumps({"prompt": {"a": PLANTED}}),
    "an unknown field": json.dumps({PLANTED: "a text", "prompt": "x"}),
    "an unknown mode": json.dumps({"prompt": "x", "mode": PLANTED}),
    "nothing to judge": json.dumps({"prompt": "", "id": PLANTED}),
    "both forms": json.dumps({"prompt": PLANTED, "exchanges": [{"prompt": "x"}]}),
    "NaN": f'{{"prompt": "{PLANTED}", "id": NaN}}',
    "a huge number": f'{{"prompt": "{PLANTED}", "id": {"9" * 10_000}}}',
    "deep": '{"prompt": ' + "[" * 100 + f'"{PLANTED}"' + "]" * 100 + "}",
    "very deep": '{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "a wrong role": json.dumps({"prompt": "x", "context": [{"role": PLANTED, "content": PLANTED}]}),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_refused_and_never_echoed(served, name, caplog):
    log.propagate = True
    with caplog.at_level(logging.DEBUG):
        answer = post(served, BAD_BODIES[name])
    assert answer.status_code == 400
    assert answer.json()["error"]["code"]
    assert PLANTED not in answer.text + str(answer.headers) + caplog.text
    assert any("judge" in r.getMessage() for r in caplog.records)


def test_the_routes_of_other_wires_do_not_echo_either(served, caplog):
    log.propagate = True
    answers = [
        served.http.post(path, json={"input": {PLANTED: PLANTED}, "messages": PLANTED, "input_type": PLANTED})
        for path in ("/v1/moderations", "/beta/litellm_basic_guardrail_api", "/v1/checks", "/guard/v1/chat/completions")
    ]
    answers += [served.http.get(f"/{PLANTED}"), served.http.delete(f"/v1/judge?{PLANTED}")]
    assert [a.status_code for a in answers] == [400, 400, 400, 400, 404, 405]
    assert PLANTED not in "".join(a.text + str(a.headers) for a in answers) + caplog.text


def test_a_crash_inside_is_a_500_without_words(served, monkeypatch, caplog):
    log.propagate = True

    async def broken(*_: object) -> None:
        raise RuntimeError(PLANTED)

    monkeypatch.setattr(served.core, "judge", broken)
    answer = served.http.post("/v1/judge", json={"prompt": PLANTED})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert PLANTED not in answer.text + caplog.text


def test_judged_text_is_in_no_log_unless_asked_and_then_redacted(caplog):
    log.propagate = True
    text = f"{PLANTED} mail me at jane.doe@example.org or +1 (555) 010-2030, key sk-abcdefghijklmnop1234"
    with caplog.at_level(logging.DEBUG), serving() as served:
        served.http.post("/v1/judge", json={"prompt": text, "id": PLANTED})
    assert PLANTED not in caplog.text
    caplog.clear()
    with caplog.at_level(logging.DEBUG), serving({"log_text": True}) as served:
        served.http.post("/v1/judge", json={"prompt": text})
        served.http.post("/v1/judge", json={"prompt": text, "stream": True})
    assert caplog.text.count(PLANTED) == 2
    for secret in ("jane.doe", "555", "abcdefghijklmnop"):
        assert secret not in caplog.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("write to a.b+c@mail.example.com now", "write to [email] now"),
        ("card 4111 1111 1111 1111 ok", "card [number] ok"),
        ("call +49 30 1234567", "call [number]"),
        ("password: hunter2secret", "[secret]"),
        ("Authorization: Bearer abc.def", "Authorization: [secret]"),
        ("from 192.168.10.20 to 2001:db8:0:1:2:3:4:5", "from [ip] to [ip]"),
        ("DE89 3704 0044 0532 0130 00", "[iban]"),
        ("in 1984 there were 42 of them", "in 1984 there were 42 of them"),
        ("x" * 3000, "x" * 2000 + "…"),
    ],
)
def test_redaction_knows_personal_data_by_its_form(text, shown):
    assert redact(text) == shown


def test_a_body_of_50_mb_is_refused_in_bounded_memory(served):
    part = b"x" * 100_000  # the client never holds the body whole, so that what grows is the server

    def parts():
        yield b'{"prompt": "'
        for _ in range(500):
            yield part
        yield b'"}'

    before = _memory()
    answer = post(served, parts(), **{"content-length": str(50_000_014)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert _memory() - before < 40_000_000


def test_a_chunked_body_of_50_mb_is_refused_as_well(served):
    def parts():
        yield b'{"prompt": "'
        for _ in range(500):
            yield b"x" * 100_000

    answer = post(served, parts())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert served.http.post("/v1/judge", json={"prompt": "still there"}).status_code == 200


def test_a_body_that_lies_about_its_length_is_refused(served):
    head = b"POST /v1/judge HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    assert b" 413 " in raw(served, head + b"content-length: 99999999999\r\n\r\n{}")[:20]
    assert b" 400 " in raw(served, head + b"content-length: ten\r\n\r\n{}")[:20]


def test_ten_thousand_items_are_refused(served):
    answer = served.http.post("/v1/judge", json={"exchanges": [{"prompt": "x"}] * 10_000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_many_items")
    answer = served.http.post("/v1/moderations", json={"input": ["x"] * 10_000})
    assert answer.status_code == 413


def test_a_text_beyond_the_limit_is_refused_and_one_below_it_is_judged():
    with serving({"limits": {"characters": 1000}}) as served:
        assert served.http.post("/v1/judge", json={"prompt": "x" * 1001}).status_code == 413
        assert served.http.post("/v1/judge", json={"prompt": "x" * 999}).json()["status"] == "ok"


def test_lone_surrogates_are_replaced_and_judged(served):
    answer = post(served, '{"prompt": "bad \\ud800 text", "id": "\\udfff"}')
    assert (answer.json()["flagged"], answer.json()["exchange_id"]) == (True, "?")


def test_only_declared_json_is_read(served):
    answer = served.http.post("/v1/judge", content='{"prompt": "x"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 415


def test_a_slow_body_is_refused_and_a_slow_head_is_cut_off():
    with serving({"limits": {"body_seconds": 0.4}}) as served:
        head = b"POST /v1/judge HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 50\r\n"
        assert b" 408 " in raw(served, head + b'\r\n{"prompt"')[:20]
        assert raw(served, b"GET /healthz HTT") == b""  # the server ends the connection, or this never ends


def test_a_slow_head_on_a_kept_connection_is_cut_off_too():
    with serving({"limits": {"body_seconds": 0.4}}) as served:
        got = raw(served, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n", b"GET /healthz HTT")
        assert got.count(b"HTTP/1.1 200") == 1


def test_a_kept_connection_outlives_the_limit_between_requests():
    with serving({"limits": {"body_seconds": 0.3}}) as served:
        assert served.http.get("/healthz").status_code == 200
        time.sleep(0.6)
        assert served.http.get("/healthz").status_code == 200


@pytest.mark.parametrize("key", [None, "Bearer wrong", "Basic 0123456789abcdef", "0123456789abcdef", "Bearer"])
def test_without_the_right_key_nothing_is_answered(key):
    with serving(keys=KEYS) as served:
        headers = {} if key is None else {"authorization": key}
        for method, path in (("POST", "/v1/judge"), ("POST", "/v1/moderations"), ("GET", "/metrics"), ("GET", "/x")):
            answer = served.http.request(method, path, json={"prompt": "x"}, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized")
        assert served.http.get("/healthz").status_code == served.http.get("/").status_code == 200


def test_the_right_key_opens_as_bearer_and_as_x_api_key():
    with serving(keys=KEYS) as served:
        for headers in ({"authorization": "Bearer 0123456789abcdef"}, {"x-api-key": "0123456789abcdef"}):
            assert served.http.post("/v1/judge", json={"prompt": "x"}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "origin", "code"),
    [
        ("localhost:80", None, 200),
        ("127.0.0.1", "http://127.0.0.1", 200),
        ("guard.example.org", "https://guard.example.org", 200),
        ("127.0.0.1:1", "https://guard.example.org", 200),
        ("evil.example.com", None, 400),
        ("localhost.evil.example.com", None, 400),
        ("localhost, evil", None, 400),
        ("user@localhost", None, 400),
        ("", None, 400),
        ("localhost", "http://evil.example.com", 403),
        ("localhost", "null", 403),
        ("localhost", "http://[", 403),
    ],
)
def test_a_server_answers_to_its_own_names_only(served_with_names, host, origin, code):
    headers = {"host": host, **({"origin": origin} if origin else {})}
    answer = served_with_names.http.post("/v1/judge", json={"prompt": "x"}, headers=headers)
    assert answer.status_code == code
    assert "access-control-allow-origin" not in answer.headers


@pytest.fixture(scope="module")
def served_with_names():
    with serving(names=names_for("127.0.0.1", ("guard.example.org",))) as running:
        yield running


def test_no_page_may_frame_or_script_us_and_answers_are_not_cached(served):
    headers = served.http.get("/").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
    assert "server" not in headers


def test_other_machines_are_let_in_with_a_key_only():
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    check_exposure("127.0.0.1", read_keys({}))
    check_exposure("0.0.0.0", KEYS)
    with pytest.raises(ConfigError, match="GUARDREASONER_API_KEYS"):
        check_exposure("0.0.0.0", read_keys({}))


def test_keys_of_the_environment_are_named_or_numbered():
    keys = read_keys({"GUARDREASONER_API_KEYS": " a=0123456789abcdef , fedcba9876543210= "})
    assert list(keys.digests) == ["a", "key2"]
    assert keys.holder("bearer fedcba9876543210=") == "key2"
    with pytest.raises(Refused):
        keys.holder("Bearer a")
    for wrong in ("short", "a=0123456789abcdef,a=fedcba9876543210"):
        with pytest.raises(ConfigError) as caught:
            read_keys({"GUARDREASONER_API_KEYS": wrong})
        assert "0123456789abcdef" not in str(caught.value)


def _memory() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096
