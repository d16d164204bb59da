"""Who may call: a bearer token for machines, a session cookie for the panel; one dependency for every route.

A token is a file in a folder (a mounted Secret): its name is the token's, its content the token or `sha256:<hex>` of it. The
folder is read again and again, so that a file taken away revokes its token and every session that began with it.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import Request

from tipbench.api.problems import Problem

COOKIE = "tipbench_session"
CSRF_HEADER = "X-CSRF-Token"
IDLE_S, LONGEST_S = 3600, 12 * 3600
"""A session ends this long after its last use, and this long after its beginning at the latest."""
RENEW_S = 300
"""A cookie older than this is issued anew."""
READ_AGAIN_S = 2.0
FREE_FAILURES, LONGEST_LOCK_S, FORGET_S = 5, 60.0, 600.0
"""Wrong credentials that cost nothing, the longest wait after them, and when they are forgotten."""
LATE_S, MOST_LATE = 0.5, 50
"""How late a wrong bearer token is answered after those, and how many of an address may be on their way."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
PUBLIC = frozenset({("GET", "/healthz"), ("GET", "/readyz"), ("POST", "/api/session")})
"""The routes that ask for nothing; every other one is the admin's."""


@dataclass(frozen=True)
class Identity:
    """Who is calling, and how we know."""

    name: str
    method: Literal["session", "bearer"]
    user: str | None = None
    csrf_token: str | None = None
    session_id: str | None = None
    expires_at: datetime | None = None

    @property
    def actor(self) -> str:
        """For logs and records: the person where a proxy names one, else the token's name."""
        return self.user or self.name


class Tokens:
    """Named tokens, known by their hashes only."""

    def __init__(self, folder: str, extra: Mapping[str, str] | None = None) -> None:
        """`extra` are tokens (name -> token) that live as long as this process."""
        self._folder = Path(folder) if folder else None
        self._extra = {name: _hash(token) for name, token in (extra or {}).items()}
        self._codes: set[bytes] = set()
        self._known: dict[str, bytes] = {}
        self._read_at = -READ_AGAIN_S

    def once(self) -> str:
        """A code for one login."""
        code = secrets.token_urlsafe(24)
        self._codes.add(_hash(code))
        return code

    def redeem(self, code: str) -> bool:
        """Is it such a code? It is not one any more afterwards."""
        found = [known for known in self._codes if hmac.compare_digest(known, _hash(code))]
        self._codes.difference_update(found)
        return bool(found) and bool(self._extra)

    def name_of(self, token: str) -> str | None:
        """The token's name, or None. Every known one is compared, so that time tells nothing."""
        given, found = _hash(token), None
        for name, known in self._all().items():
            if hmac.compare_digest(given, known):
                found = name
        return found

    def mark(self, name: str) -> str | None:
        """What a session remembers of its token, to notice that it was taken away or replaced; None without the token."""
        known = self._all().get(name)
        return sha256(b"mark" + known).hexdigest()[:16] if known is not None else None

    def first(self) -> str:
        """The name of the token that a login code stands for."""
        return next(iter(self._extra))

    def _all(self) -> dict[str, bytes]:
        if self._folder is not None and time.monotonic() - self._read_at >= READ_AGAIN_S:
            self._known = dict(_read(self._folder))
            self._read_at = time.monotonic()
        return self._known | self._extra


def _read(folder: Path) -> list[tuple[str, bytes]]:
    """(name, hash) of every token; the session's secret lies beside them and is none."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or path.name == "session-secret" or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        if text.startswith("sha256:"):
            try:
                found.append((path.name, bytes.fromhex(text.removeprefix("sha256:"))))
            except ValueError:
                continue
        elif text:
            found.append((path.name, _hash(text)))
    return found


def _hash(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


class Throttle:
    """Slows guessing down, by address. Whoever logs in has to wait after a few failures, twice as long each time. A wrong
    bearer token is answered late instead: machines behind one address are not locked out by one of them."""

    def __init__(self, longest: int = 10_000) -> None:
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._late: Counter[str] = Counter()
        self._longest = longest

    def check(self, address: str) -> None:
        """Raises 429 while the address has to wait."""
        count, last = self._failures.get(address, (0, 0.0))
        if count < FREE_FAILURES:
            return
        left = last + min(2.0 ** (count - FREE_FAILURES), LONGEST_LOCK_S) - time.monotonic()
        if left > 0:
            wait = str(int(left) + 1)
            raise Problem(
                429,
                f"There were {count} attempts with wrong credentials from here; wait {wait} s.",
                headers={"Retry-After": wait},
            )

    def failed(self, address: str) -> None:
        """Count a wrong credential."""
        count, last = self._failures.pop(address, (0, 0.0))
        if time.monotonic() - last > FORGET_S:
            count = 0
        self._failures[address] = (count + 1, time.monotonic())
        while len(self._failures) > self._longest:
            self._failures.popitem(last=False)

    async def answer_late(self, address: str) -> None:
        """Count a wrong bearer token, and hold its answer back after a few; 429 for those that do not wait for it."""
        self.failed(address)
        if self._failures[address][0] <= FREE_FAILURES:
            return
        if self._late[address] >= MOST_LATE:
            raise Problem(429, "Too many wrong tokens at once from here.", headers={"Retry-After": "1"})
        self._late[address] += 1
        try:
            await asyncio.sleep(LATE_S)
        finally:
            self._late[address] -= 1
            if not self._late[address]:
                del self._late[address]

    def succeeded(self, address: str) -> None:
        """A right one ends the wait."""
        self._failures.pop(address, None)


class Auth:
    """Tokens, sessions and the check that every route makes."""

    def __init__(self, tokens: Tokens, secret: str, user_header: str = "") -> None:
        self.tokens = tokens
        self.logins, self.bearers = Throttle(), Throttle()
        self._signer = URLSafeTimedSerializer(secret or secrets.token_hex(32), salt="tipbench.session")
        self._ended: OrderedDict[str, float] = OrderedDict()
        self._user_header = user_header

    # -- the check -----------------------------------------------------------------------------

    async def __call__(self, request: Request) -> None:
        """The one dependency: raises 401, 403 or (for a crowd of wrong tokens) 429, or leaves the caller's identity in `request.state`."""
        if request.method not in SAFE:
            _same_site(request)
        route = request.scope.get("route")
        if (request.method.replace("HEAD", "GET"), getattr(route, "path", "")) in PUBLIC:
            return
        try:
            request.state.identity = request.scope["identity"] = self.identify(request)
        except Problem:
            if "Authorization" in request.headers:
                await self.bearers.answer_late(address_of(request))
            raise

    def identify(self, request: Request, idle_s: float | None = None) -> Identity:
        """The caller. A bearer token is looked at alone, whatever cookies come with it. A long answer that looks again may
        allow a cookie more than the usual time: it has only the one it began with.
        """
        header = request.headers.get("Authorization")
        if header is not None:
            return self._bearer(header, request)
        identity = self._session(request, IDLE_S if idle_s is None else idle_s)
        if request.method not in SAFE and not hmac.compare_digest(
            request.headers.get(CSRF_HEADER, "").encode(), (identity.csrf_token or "").encode()
        ):
            raise Problem(
                403, f"A change made with a session needs the header {CSRF_HEADER}; GET /api/session tells its value."
            )
        return identity

    def _bearer(self, header: str, request: Request) -> Identity:
        scheme, _, token = header.partition(" ")
        name = self.tokens.name_of(token.strip()) if scheme.lower() == "bearer" and token.strip() else None
        if name is None:
            raise _unauthenticated("The bearer token is not one of this API's; it may have been revoked.")
        user = request.headers.get(self._user_header) if self._user_header else None
        return Identity(name, "bearer", user=user[:200] if user else None)

    def _session(self, request: Request, idle_s: float) -> Identity:
        cookie = request.cookies.get(COOKIE)
        if not cookie:
            raise _unauthenticated("Log in, or send an admin token: Authorization: Bearer TOKEN.")
        try:
            body, issued = self._signer.loads(cookie, max_age=int(idle_s), return_timestamp=True)
        except BadSignature as error:
            raise _unauthenticated("The session has expired or is not one of this API's; log in again.") from error
        now = time.time()
        began, name = float(body["began"]), str(body["name"])
        if body["id"] in self._ended or now - began > LONGEST_S or self.tokens.mark(name) != body["mark"]:
            raise _unauthenticated("The session is over; log in again.")
        if now - issued.timestamp() > RENEW_S:
            self._issue(request, body)
        ends = min(now + IDLE_S, began + LONGEST_S)
        return Identity(
            name,
            "session",
            csrf_token=body["csrf"],
            session_id=body["id"],
            expires_at=datetime.fromtimestamp(ends, UTC),
        )

    # -- sessions ------------------------------------------------------------------------------

    def login(self, request: Request, token: str) -> Identity:
        """Exchange a token, or a code for one login, for a session. Raises 401, and 429 while the address has to wait."""
        address = address_of(request)
        self.logins.check(address)
        name = self.tokens.name_of(token)
        if name is None and self.tokens.redeem(token):
            name = self.tokens.first()
        mark = self.tokens.mark(name) if name is not None else None
        if name is None or mark is None:
            self.logins.failed(address)
            raise _unauthenticated("This is not one of this API's tokens.")
        self.logins.succeeded(address)
        body = {
            "name": name,
            "mark": mark,
            "id": secrets.token_hex(8),
            "csrf": secrets.token_urlsafe(24),
            "began": time.time(),
        }
        self._issue(request, body)
        ends = datetime.fromtimestamp(time.time() + IDLE_S, UTC)
        return Identity(name, "session", csrf_token=str(body["csrf"]), session_id=str(body["id"]), expires_at=ends)

    def logout(self, request: Request, identity: Identity) -> None:
        """End the session: its cookie is worth nothing from now on, whoever kept a copy."""
        if identity.session_id is not None:
            now = time.time()
            self._ended[identity.session_id] = now
            while self._ended and next(iter(self._ended.values())) < now - LONGEST_S:
                self._ended.popitem(last=False)
        request.scope["set_cookie"] = _cookie(request, "", 0)

    def _issue(self, request: Request, body: Mapping[str, object]) -> None:
        request.scope["set_cookie"] = _cookie(request, self._signer.dumps(dict(body)), IDLE_S)


def _cookie(request: Request, value: str, max_age: int) -> str:
    secure = "; Secure" if request.url.scheme == "https" else ""
    path = request.scope.get("prefix", "") + "/"
    return f"{COOKIE}={value}; Path={path}; Max-Age={max_age}; HttpOnly; SameSite=Strict{secure}"


def _unauthenticated(detail: str) -> Problem:
    return Problem(401, detail, headers={"WWW-Authenticate": 'Bearer realm="tipbench"'})


def _same_site(request: Request) -> None:
    """Refuse a change that another site's page asks the browser for, whatever credentials the browser adds."""
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site is not None and site not in ("same-origin", "none"):
        raise Problem(403, "This request comes from another site's page.")
    if site is None and origin is not None and urlsplit(origin).netloc not in _names_of(request):
        raise Problem(
            403,
            f"This request comes from another site's page ({origin[:200]}). If that is this panel behind a proxy, the proxy has to pass "
            "the Host as the browser sent it, port included, or X-Forwarded-Host with FORWARDED_ALLOW_IPS naming the proxy.",
        )


def _names_of(request: Request) -> set[str]:
    """What the browser may know this server as: its Host, and what a trusted proxy says that it was before (`server.Behind`)."""
    forwarded = request.scope.get("forwarded_host", "")
    port = request.scope.get("forwarded_port", "")
    return {request.headers.get("Host", ""), forwarded, f"{forwarded}:{port}" if forwarded and port else ""} - {""}


def address_of(request: Request) -> str:
    """The caller's address, as far as the server knows it (behind a proxy: FORWARDED_ALLOW_IPS)."""
    return request.client.host if request.client else "unknown"


async def identity_of(request: Request) -> Identity:
    """The caller, after the check."""
    identity: Identity = request.state.identity
    return identity
