"""The certificate that a server shows, and its key."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from autovision.errors import InvalidInput


@dataclass(frozen=True)
class Tls:
    """A certificate, with those that vouch for it, and its key: PEM files that every node with a proxy must have."""

    cert: Path
    key: Path

    def check(self) -> None:
        """Raises `InvalidInput` for files that cannot be read or do not belong together."""
        try:
            # Without a password given, OpenSSL would ask for that of an encrypted key on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.cert, self.key, password="")
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(
                f"TLS with certificate {str(self.cert)!r} and key {str(self.key)!r} is not possible ({error}); "
                "give two PEM files that belong together, the key without a password"
            ) from None
