"""What went wrong with a request to S3: whether to send it again, whether it may have been carried out, what to say.

Nothing of what is said here can hold a credential: the service's own words are repeated without access keys, and
addresses without what stands before an `@`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

Failure = (BotoCoreError, ClientError, ResponseParserError, HTTPError)
"""what requests raise; the last two where a short answer breaks off, which botocore lets through as it comes"""

_CREDENTIALS = (
    "give some as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, as a profile (AWS_PROFILE), or as a role"
)
_RIGHTS = "give this identity s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject there"
_REMEDIES = {
    "NoSuchBucket": "create it, for example with `aws s3 mb`, or correct its name in --store or AUTOVISION_STORE",
    "AccessDenied": _RIGHTS,
    "AllAccessDisabled": _RIGHTS,
    "403": f"check the credentials, then {_RIGHTS}",
    "InvalidAccessKeyId": "check AWS_ACCESS_KEY_ID, AWS_PROFILE, and that they belong to this endpoint",
    "SignatureDoesNotMatch": "check AWS_SECRET_ACCESS_KEY, and that it belongs to this endpoint",
    "ExpiredToken": "sign in again: the temporary credentials have expired",
    "InvalidToken": "sign in again: the temporary credentials are not valid here",
    "RequestTimeTooSkewed": "set this machine's clock right",
    "NoSuchUpload": "repeat the command",
    "KeyTooLongError": "choose a shorter prefix for the store",
    "InvalidStorageClass": "correct the bucket's settings",
    "301": "name the bucket's region with AWS_REGION or ?region=… in the store's URI",
    "NotImplemented": "use a server that knows conditional writes, such as Amazon S3 or a current MinIO",
}
for _code in ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
    _REMEDIES[_code] = _REMEDIES["301"]
_AGAIN = {
    *(
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "RequestTimeout",
    ),
    *("InternalError", "ServiceUnavailable", "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"),
    *("429", "500", "502", "503", "504"),
}
_MISSING = {"NoSuchKey", "404", "NotFound"}


class Kind(Enum):
    """What follows from a failure."""

    MISSING = auto()
    """there is no such object"""
    PRECONDITION = auto()
    """the condition of a conditional request does not hold"""
    RACE = auto()
    """another request was at the same object at the same moment: nothing was done, try again"""
    AGAIN = auto()
    """it may pass: try again"""
    FATAL = auto()
    """it will not pass by itself"""


@dataclass(frozen=True)
class Fault:
    """What is known of a failure."""

    kind: Kind
    text: str
    """what happened, in words that can be shown"""
    remedy: str
    arrived: bool = True
    """whether the request may have reached the service, and been carried out"""
    answered: bool = False
    """whether something answered at all"""


def fault_of(error: Exception) -> Fault:
    """Sort a failure."""
    if isinstance(error, ClientError):
        return _of_answer(error.response)
    name = type(error).__name__
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return Fault(
            Kind.FATAL, "no credentials were found" if name[0] == "N" else _words(error), _CREDENTIALS, False
        )
    if isinstance(error, boto.ProfileNotFound):
        return Fault(Kind.FATAL, _words(error), "correct AWS_PROFILE", False)
    if isinstance(error, boto.CredentialRetrievalError | boto.TokenRetrievalError | boto.SSOError):
        return Fault(Kind.FATAL, _words(error), "sign in again, or correct the profile", False)
    if isinstance(error, boto.SSLError):
        return Fault(
            Kind.FATAL,
            _words(error),
            "check the certificate (AWS_CA_BUNDLE names your own authority's)",
            False,
        )
    if isinstance(error, boto.EndpointConnectionError | boto.ConnectTimeoutError | boto.ProxyConnectionError):
        return Fault(
            Kind.AGAIN,
            _words(error),
            "check the address (AWS_ENDPOINT_URL, ?endpoint=…) and the network",
            False,
        )
    if isinstance(
        error, boto.HTTPClientError | boto.IncompleteReadError | boto.FlexibleChecksumError
    ) or not (isinstance(error, BotoCoreError)):
        return Fault(Kind.AGAIN, _words(error), "check the network and the server")
    return Fault(Kind.FATAL, f"{name}: {_words(error)}", "check the store's URI and AWS's settings", False)


def scrubbed(text: str) -> str:
    """`text` without anything that looks like a credential."""
    text = re.sub(r"//[^/@\s]*@", "//…@", text)
    return re.sub(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{8,}\b", "…", text)


def _of_answer(response: Any) -> Fault:
    error, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), int(meta.get("HTTPStatusCode", 0))
    text = scrubbed(f"{code}: {error.get('Message', '')}".strip(": "))
    remedy = _REMEDIES.get(code, "check the bucket, its region and its policy")
    if code in _MISSING or (status == 404 and code not in ("NoSuchBucket", "NoSuchUpload")):
        return Fault(Kind.MISSING, text, remedy, answered=True)
    if status == 412 or code == "PreconditionFailed":
        return Fault(Kind.PRECONDITION, text, remedy, answered=True)
    if status == 409 or code in ("ConditionalRequestConflict", "OperationAborted"):
        return Fault(Kind.RACE, text, remedy, answered=True)
    if code.startswith("KMS"):
        remedy = "check the key of KMS that the store's URI or the bucket names, and the right to use it"
    if code in _AGAIN or (status >= 500 and status != 501) or status == 429:
        return Fault(Kind.AGAIN, text, "check the server's state", answered=True)
    region = meta.get("HTTPHeaders", {}).get("x-amz-bucket-region") or error.get("Region")
    if region and remedy == _REMEDIES["301"]:
        text += f" (the bucket is in {region})"
    return Fault(Kind.FATAL, text, remedy, answered=True)


def _words(error: BaseException) -> str:
    return scrubbed(" ".join(str(error).split()))[:300]
