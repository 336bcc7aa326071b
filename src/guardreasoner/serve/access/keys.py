"""Who may call: bearer keys from the environment, the server's names, and the origins of pages that may call.

    GUARDREASONER_API_KEYS="web=<secret>,batch=<secret>"

A key without a name is called `key1`, `key2`, ... Names go into metrics and logs, keys never do.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from guardreasoner.errors import ConfigError
from guardreasoner.serve.access.limits import Refused

VARIABLE = "GUARDREASONER_API_KEYS"
UPSTREAM_VARIABLE = "GUARDREASONER_UPSTREAM_KEY"
SHORTEST = 16
ANONYMOUS = "anonymous"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")


@dataclass(frozen=True, slots=True)
class Keys:
    """Digests of the keys, by the name of their holder."""

    digests: Mapping[str, bytes]

    def holder(self, authorization: str | None) -> str:
        """The name of the holder of a bearer key; `anonymous` where no keys are set."""
        if not self.digests:
            return ANONYMOUS
        scheme, _, secret = (authorization or "").partition(" ")
        given = hashlib.sha256(secret.strip().encode("utf-8", "replace")).digest()
        found = [name for name, digest in self.digests.items() if hmac.compare_digest(digest, given)]
        if scheme.lower() != "bearer" or not found:
            raise Refused(401, "a valid bearer key is needed", "unauthorized", {"www-authenticate": "Bearer"})
        return found[0]


def read_keys(environment: Mapping[str, str]) -> Keys:
    """The keys that an environment holds."""
    digests: dict[str, bytes] = {}
    for number, entry in enumerate(filter(None, (e.strip() for e in environment.get(VARIABLE, "").split(","))), 1):
        name, _, secret = entry.partition("=")
        if not secret.strip("=") or not re.fullmatch(r"[A-Za-z0-9._-]{1,40}", name):  # base64 may end in "="
            name, secret = f"key{number}", entry
        if len(secret) < SHORTEST:
            raise ConfigError(f"{VARIABLE}: key {number} is shorter than {SHORTEST} characters")
        if name in digests:
            raise ConfigError(f"{VARIABLE}: two keys are named {name}")
        digests[name] = hashlib.sha256(secret.encode()).digest()
    return Keys(digests)


def read_upstream_key(environment: Mapping[str, str]) -> str | None:
    """The proxy's key for its upstream, without the line end that a file may have left on it."""
    key = environment.get(UPSTREAM_VARIABLE, "").strip()
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{UPSTREAM_VARIABLE}: a key holds printable ASCII characters only, and no line end")
    return key or None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, keys: Keys) -> None:
    """Refuse to serve others without a key."""
    if not is_loopback(host) and not keys.digests:
        raise ConfigError(
            f"serving on {host} lets other machines in: set {VARIABLE}=name=secret first, or serve on 127.0.0.1"
        )


@dataclass(frozen=True, slots=True)
class HostNames:
    """The host names by which the server may be called; empty = any well-formed one."""

    allowed: Sequence[str]

    def check(self, host: str | None, origin: str | None) -> None:
        """Refuse what another page or another name sends (DNS rebinding, requests forged by a browser)."""
        match = _HOST.fullmatch(host or "")
        if match is None:
            raise Refused(400, "the Host header is malformed", "bad_host")
        name = match["name"].strip("[]").lower()
        if self.allowed and name not in self.allowed:
            raise Refused(400, "this server is not called by that name; add it to `hosts` in the policy", "bad_host")
        if origin is not None and not self._own(origin, host or ""):
            raise Refused(403, "requests from other origins are not allowed", "bad_origin")

    def _own(self, origin: str, host: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:  # it is no address
            return False
        return parts.netloc.lower() == host.lower() or (bool(parts.hostname) and parts.hostname in self.allowed)


def names_for(host: str, hosts: Sequence[str]) -> HostNames:
    """The names of a server that listens on `host`: those of the policy, and the loopback names on loopback."""
    closed = bool(hosts) or is_loopback(host)
    return HostNames(tuple(h.lower() for h in (*hosts, *LOOPBACK_NAMES)) if closed else ())
