"""Where a store on S3 is, and how its objects are encrypted: `s3://bucket/prefix?region=eu-central-1&sse=aws:kms`."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from autovision.errors import InvalidInput, near
from autovision.store.keypaths import check_key

SSE = ("AES256", "aws:kms", "aws:kms:dsse")
ADDRESSING = ("path", "virtual")

_BUCKET = re.compile(r"[a-z0-9A-Z][a-zA-Z0-9._-]{1,61}[a-z0-9A-Z]")
_HOW = "write s3://BUCKET/PREFIX"
_MAX_PREFIX_BYTES = 512


@dataclass(frozen=True)
class S3Location:
    """All that a URI says. What it leaves out follows from the standard AWS chain: environment, profile, role."""

    bucket: str
    prefix: str = ""
    """empty, or what all keys begin with, with a slash at its end"""
    endpoint: str | None = None
    region: str | None = None
    addressing: str | None = None
    """`path` or `virtual`; None: path-style wherever the endpoint is not Amazon's"""
    sse: str | None = None
    """server-side encryption, one of `SSE`; None: the bucket's default"""
    kms_key: str | None = None
    """id or ARN of the key; None: the account's own for S3"""
    bucket_key: str | None = None
    """`true`: fewer calls of KMS, at the price of one key per bucket for a time"""

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Raises `InvalidInput`; whatever the URI holds that might be a secret is not repeated."""
        parts = _split(uri, "the store's URI")
        if "@" in parts.netloc:
            raise InvalidInput(
                "the store's URI has a user name or a password before the bucket's name; leave them out, and give "
                "credentials as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, as a profile, or as a role"
            )
        if not _BUCKET.fullmatch(parts.netloc):
            raise InvalidInput(
                f"the store's URI names the bucket {parts.netloc!r}, which no bucket is called; {_HOW}"
            )
        if parts.fragment:
            raise InvalidInput(f"the store's URI has a '#'; write it as %23, {_HOW}")
        prefix = unquote(parts.path).strip("/")
        if prefix:
            try:
                check_key(prefix)
            except InvalidInput as error:
                raise InvalidInput(f"the store's URI has a prefix that no key can have: {error}") from error
        if len(prefix.encode()) > _MAX_PREFIX_BYTES:
            raise InvalidInput(
                f"the store's URI has a prefix of {len(prefix.encode())} bytes; {_MAX_PREFIX_BYTES} are allowed"
            )
        return cls(parts.netloc, f"{prefix}/" if prefix else "", **_options(parts.query))

    @property
    def uri(self) -> str:
        """The URI in its one canonical form: it opens the same store in any process."""
        said = {name: getattr(self, field) for name, field in _OPTIONS.items()}
        query = urlencode({name: value for name, value in said.items() if value is not None}, safe=":/")
        path = f"/{quote(self.prefix.rstrip('/'))}" if self.prefix else ""
        return f"s3://{self.bucket}{path}{'?' if query else ''}{query}"

    def encryption(self) -> dict[str, str | bool]:
        """The arguments of every request that writes."""
        said: dict[str, str | bool] = {}
        if self.sse is not None:
            said["ServerSideEncryption"] = self.sse
        if self.kms_key is not None:
            said["SSEKMSKeyId"] = self.kms_key
        if self.bucket_key is not None:
            said["BucketKeyEnabled"] = self.bucket_key == "true"
        return said


_OPTIONS = {
    field.name.replace("_", "-"): field.name
    for field in fields(S3Location)
    if field.name not in ("bucket", "prefix")
}


def _options(query: str) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    for name in given:
        if name not in _OPTIONS:
            known = list(_OPTIONS)
            raise InvalidInput(
                f"the store's URI has the option {name!r}{near(name, known)}; there are {', '.join(known)}. "
                "Credentials never belong into it"
            )
    for name, allowed in (("sse", SSE), ("addressing", ADDRESSING), ("bucket-key", ("true", "false"))):
        if name in given and given[name] not in allowed:
            raise InvalidInput(f"the store's URI has {name}={given[name]!r}; use {', '.join(allowed)}")
    if ("kms-key" in given or "bucket-key" in given) and not given.get("sse", "").startswith("aws:kms"):
        raise InvalidInput("the store's URI names a key of KMS without sse=aws:kms; add that")
    _check_endpoint(given.get("endpoint"))
    for name, value in given.items():
        if not value:
            raise InvalidInput(f"the store's URI has {name}= without a value; leave it out, or give one")
    return {_OPTIONS[name]: value for name, value in given.items()}


def _split(address: str, what: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 - it is looked at when it is asked for
    except ValueError:
        # Python's own words repeat parts of it, which may be a password.
        raise InvalidInput(f"{what} is no address; {_HOW}, and an endpoint as http://HOST:PORT") from None
    return parts


def _check_endpoint(endpoint: str | None) -> None:
    if endpoint is None:
        return
    parts = _split(endpoint, "the endpoint in the store's URI")
    if "@" in parts.netloc:
        raise InvalidInput(
            "the endpoint in the store's URI has a user name or a password; leave them out, and give credentials as "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, as a profile, or as a role"
        )
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
        raise InvalidInput(
            f"the store's URI has the endpoint {endpoint!r}; write http://HOST:PORT or https://HOST"
        )
