"""Addresses, read once: an `Address` is the URL without its credentials; these are kept beside it, for the client alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tipbench.errors import InputError
from tipbench.net.secret import MASK, Secret, has_control, remember

if TYPE_CHECKING:
    # The command line imports this for every --help; what reads URLs and paths is imported where one is read.
    from pathlib import Path
    from typing import Any
    from urllib.parse import SplitResult

_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_HOST_AND_PORT = re.compile(r"(?:[^\s/@\\]+@)?(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.%]+\]):[0-9]{1,5}(?:/.*)?")
_NUMBERS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_ENDINGS = frozenset(
    "ai app cloud cluster com corp de dev edu eu example home internal intranet io lan local localdomain localhost net org svc test uk".split()
)
"""Last parts of names that are hosts, not folders."""
RESERVED = frozenset({"databricks", "databricks-uc", "uc", "http", "https", "file"})
"""Words that mean something to MLflow's own client, and would be folders here."""


@dataclass(frozen=True)
class Credentials:
    """What stood before the `@` of a URL, decoded."""

    user: str
    password: Secret


class Address(str):
    """One http(s) URL. As text it has no credentials, no white space and no slash at its end; `credentials` has what was split off.

    It is text wherever text is wanted (messages, JSON, receipts), so that nobody can print more than may be seen.
    """

    credentials: Credentials | None

    def __new__(cls, shown: str, credentials: Credentials | None = None) -> Address:
        """Only `read_address` makes one."""
        made = super().__new__(cls, shown)
        made.credentials = credentials
        return made

    def __getnewargs__(self) -> tuple[str]:
        return (str(self),)

    def __deepcopy__(self, memo: object) -> Address:
        return self

    def __copy__(self) -> Address:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle is written somewhere: it goes without the credentials."""
        return (Address, (str(self),))

    @property
    def parts(self) -> SplitResult:
        """The URL's parts."""
        from urllib.parse import urlsplit

        return urlsplit(str(self))

    @property
    def host(self) -> str:
        """The host in lower case, without brackets and port."""
        return self.parts.hostname or ""

    @property
    def port(self) -> int:
        """The port, or the scheme's own."""
        return self.parts.port or (443 if self.parts.scheme == "https" else 80)

    def reveal(self) -> str:
        """The URL with its credentials, to hand it to a process of ours; never for a message."""
        if self.credentials is None:
            return str(self)
        from urllib.parse import quote

        user, password = quote(self.credentials.user, safe=""), quote(self.credentials.password.reveal(), safe="")
        scheme, rest = str(self).split("://", 1)
        return f"{scheme}://{user}{':' + password if password else ''}@{rest}"


class Addresses(str):
    """Several addresses, comma-separated, as text again without any credentials; `each` has them one by one."""

    each: tuple[Address, ...]

    def __new__(cls, each: tuple[Address, ...]) -> Addresses:
        """The text is made from the addresses."""
        made = super().__new__(cls, ",".join(each))
        made.each = each
        return made

    def __getnewargs__(self) -> tuple[tuple[Address, ...]]:  # type: ignore[override]
        return (self.each,)

    def __deepcopy__(self, memo: object) -> Addresses:
        return self

    def __copy__(self) -> Addresses:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (Addresses, (self.each,))

    def reveal(self) -> str:
        """The list with credentials; see `Address.reveal`."""
        return ",".join(one.reveal() for one in self.each)


def revealed(text: str) -> str:
    """The text with the credentials that belong to it, for a process of ours; never for a message."""
    return text.reveal() if isinstance(text, Address | Addresses | Hidden) else text


class Hidden(str):
    """A URL that is a secret as a whole, such as a chat tool's incoming webhook: as text it is the host alone."""

    _url: str

    def __new__(cls, url: str) -> Hidden:
        """`url` is the whole of it."""
        from urllib.parse import urlsplit

        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            host = ""
        made = super().__new__(cls, f"{url.split('://', 1)[0]}://{host}/{MASK}" if host else MASK)
        made._url = url
        remember(url)
        return made

    def __getnewargs__(self) -> tuple[str]:
        return (str(self),)

    def __deepcopy__(self, memo: object) -> Hidden:
        return self

    def __copy__(self) -> Hidden:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (Hidden, (str(self),))

    def reveal(self) -> str:
        """The URL, for whoever calls it."""
        return self._url


def has_credentials(value: object) -> bool:
    """Is it an address, or a list of them, that came with a user or a password?"""
    each = value.each if isinstance(value, Addresses) else (value,)
    return any(isinstance(one, Address) and one.credentials is not None for one in each)


def masked(text: str) -> str:
    """Any text that may be a URL, fit to be shown: nothing before an `@`, no query, no control characters."""
    text = text.strip()
    if "@" in text:
        scheme = re.match(r"(?:[A-Za-z][A-Za-z0-9+.-]*://)?", text)
        text = f"{scheme[0] if scheme else ''}{MASK}@{text.rpartition('@')[2]}"
    text = re.split(r"[?#]", text, maxsplit=1)[0]
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= 200 else shown[:199] + "…"


def without_credentials(text: str) -> str:
    """A URL, or several, as they may be shown: what `read_addresses` makes of it, or a masked text of what is none."""
    if "://" not in text:
        return text
    try:
        return str(read_addresses(text, ""))
    except InputError:
        return masked(text)


def read_address(text: str, name: str) -> Address:
    """One http(s) URL. `name` is the option or variable that it comes from.

    Raises InputError, which shows no credentials, for anything else: another scheme or none, no host, a port out of range, a query,
    white space, or an `@` after the host's part (a password's `/` that should be `%2F`).
    """
    if isinstance(text, Address):
        return text
    from urllib.parse import urlsplit

    text = text.strip()
    shown = masked(text)

    def refused(why: str) -> InputError:
        return InputError(f"{name} {shown!r} {why}".lstrip())

    if "@" in text:
        # Whatever becomes of it, what stands before an @ is never shown.
        _remember_all(text)
    if not re.match(r"(?i)https?://", text):
        if "://" not in text and _HOST_AND_PORT.fullmatch(text):
            raise refused(f"has no scheme; write http://{shown}")
        raise refused("is no http:// or https:// address; write it like http://HOST:PORT")
    if any(c.isspace() or not c.isprintable() for c in text):
        raise refused("has white space or a control character in it")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise refused(
            "is no URL; a port is a number up to 65535, and / @ : in a password are written %2F %40 %3A"
        ) from error
    if port == 0:
        raise refused("has port 0, which nobody can listen on")
    if "@" in parts.path:
        raise refused("has an @ after its host; a / in a password is written %2F")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise refused("has a query or a fragment (? or #), which a base address cannot have; leave it out")
    host = parts.hostname or ""
    if not host or ("[" not in parts.netloc and not _HOST.fullmatch(host)):
        try:
            ascii_host = host.encode("idna").decode()
        except UnicodeError:
            ascii_host = ""
        if not ascii_host or not _HOST.fullmatch(ascii_host):
            raise refused("names no host; write it like http://HOST:PORT")
        host = ascii_host
    credentials = None
    userinfo, at, _ = parts.netloc.rpartition("@")
    if at:
        user, _, password = userinfo.partition(":")
        remember(userinfo)
        credentials = Credentials(_decoded(user, name), Secret(_decoded(password, name), f"the password in {name}"))
    place = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/")
    return Address(f"{parts.scheme.lower()}://{place}{f':{port}' if port is not None else ''}{path}", credentials)


def _decoded(text: str, name: str) -> str:
    """Percent-decoded; raises InputError for control characters, which neither users nor passwords have in a URL."""
    from urllib.parse import unquote

    decoded = unquote(text)
    if has_control(decoded):
        raise InputError(f"{name}: the user or password in it has a control character (it is not shown)")
    return decoded


def _remember_all(text: str) -> None:
    """Let `hide` know the credentials of a URL that may be no URL."""
    from urllib.parse import unquote

    userinfo = text.split("://", 1)[-1].rpartition("@")[0]
    for part in (userinfo, userinfo.partition(":")[2], unquote(userinfo.partition(":")[2])):
        remember(part)


def read_addresses(text: str, name: str) -> Addresses:
    """Comma-separated addresses, each once, in order. A comma in a password is no separator. Raises InputError."""
    if isinstance(text, Addresses):
        return text
    if isinstance(text, Address):
        return Addresses((text,))
    parts = [part.strip(" \t\r\n,") for part in re.split(r",(?=\s*(?:[A-Za-z][A-Za-z0-9+.-]*://|$))", text)]
    found = tuple(dict.fromkeys(read_address(part, name) for part in parts if part))
    if not found:
        raise InputError(f"{name} names no address; write it like http://HOST:PORT")
    return Addresses(found)


def read_store(text: str, name: str = "--mlflow-url") -> Address | Path:
    """Where runs are kept: an MLflow server's address, or a folder.

    A folder stays what it is: a path, `file:PATH`, or a name. Raises InputError for what would become a folder by mistake:
    HOST:PORT and host names, the words that MLflow's client gives a meaning (`databricks`, `uc`), and schemes of other stores
    (`sqlite:///…`).
    """
    if isinstance(text, Address):
        return text
    from pathlib import Path
    from urllib.parse import unquote

    text = text.strip()
    shown = masked(text)
    named = f"{name} " if name else ""
    lowered = text.lower()
    if lowered.startswith(("http://", "https://")):
        return read_address(text, name)
    if lowered.startswith("file:"):
        rest = text[len("file:") :]
        if rest.startswith("//"):
            host, slash, path = rest[2:].partition("/")
            # file://FOLDER (no third slash) was read as a relative folder before, and still is.
            rest = f"/{path}" if host.lower() == "localhost" and slash else rest[2:]
        if not rest or "\0" in rest:
            raise InputError(f"{named}{shown!r} names no folder; write it like file:///srv/tipbench")
        return Path(unquote(rest) if "%" in rest and not Path(rest).exists() else rest)
    ways = "--mlflow-url http(s)://HOST:PORT for a server, or a folder for a local store"
    if "://" in text or re.match(
        r"(?i)(?:https?|sqlite|postgres|postgresql|mysql|mssql|databricks|databricks-uc|uc|s3|gs|abfss?|wasbs?|dbfs)(?:\+[a-z0-9]+)?:",
        text,
    ):
        what = _kind_of(lowered)
        raise InputError(f"{named}{shown!r}: {what}; use {ways}")
    if not text or any(not c.isprintable() for c in text):
        raise InputError(f"{named}{shown!r} is neither a server nor a folder; use {ways}")
    if lowered in RESERVED:
        raise InputError(
            f"{named}{shown!r} is a word that means a Databricks or Unity Catalog workspace to MLflow, which tipbench cannot use; "
            f"use {ways} (./{shown} if a folder of that name is meant)"
        )
    if _is_host(text):
        place = shown.lstrip("/")
        place = f"[{place}]" if place.count(":") > 1 and "[" not in place else place
        raise InputError(
            f"{named}{shown!r} looks like a server without its scheme; write http://{place}, or ./{place} if a folder is meant"
        )
    return Path(text)


def _kind_of(text: str) -> str:
    scheme = text.split(":", 1)[0]
    if scheme.startswith(("databricks", "uc")):
        return "a Databricks or Unity Catalog workspace, which tipbench cannot use"
    if scheme.startswith(("sqlite", "postgres", "mysql", "mssql")):
        return "a database, which only an MLflow server opens (mlflow server --backend-store-uri …)"
    if scheme in ("http", "https"):
        return "an address without its two slashes"
    return f"{masked(scheme)}: is no scheme that tipbench knows"


def _is_host(text: str) -> bool:
    """Does the text look like a host, with or without port and path, and is no path that is there?"""
    from pathlib import Path

    if text.startswith("//"):
        return not Path("/" + text[2:].split("/", 1)[0]).exists()
    if _HOST_AND_PORT.fullmatch(text):
        return True
    first = text.split("/", 1)[0]
    if (
        first.lower() == "localhost"
        or _NUMBERS.fullmatch(first)
        or re.fullmatch(r"\[?[0-9A-Fa-f]*::?[0-9A-Fa-f:.]*\]?", first)
    ):
        return True
    if "@" in first and ":" in first.partition("@")[0]:
        return True  # user:password@host
    labels = first.split(".")
    if len(labels) < 2 or not all(re.fullmatch(r"[A-Za-z0-9-]+", label) for label in labels):
        return False
    known = labels[-1].lower() in _ENDINGS or (len(labels) > 2 and labels[-1].isalpha())
    return known and not Path(first).exists()


def is_loopback(host: str) -> bool:
    """Is it this machine? Such an address is never behind a proxy."""
    host = host.lower().rstrip(".").strip("[]")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    import ipaddress  # only where an address is asked for; start-up does not wait for it

    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)
