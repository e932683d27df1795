"""HTTPS with a certificate that nobody vouches for: trusted where it is named, refused everywhere else."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from autovision.errors import InvalidInput
from autovision.serving.client import Client, ServerUnavailable
from autovision.serving.readiness import exactly
from autovision.serving.tls import Tls
from tests.unit.serving.worlds import World, self_signed


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(*self_signed(tmp_path))


def test_a_client_reaches_a_server_whose_certificate_it_trusts_and_no_other(
    tls: Tls, world: World, serve: Callable[..., str], tmp_path: Path, png: Any
) -> None:
    url = serve(world, options={"ssl_certfile": str(tls.cert), "ssl_keyfile": str(tls.key)})
    world.promote("m1")
    assert url.startswith("https://")
    with Client(url, tls=exactly(tls.cert)) as client:
        assert client.predict(png(200)).label == "bright"
    named = ssl.create_default_context(cafile=tls.cert)
    with Client(url.replace("127.0.0.1", "localhost"), tls=named) as client:
        assert client.predict(png(200)).label == "bright"
    (tmp_path / "other").mkdir()
    other, _ = self_signed(tmp_path / "other")
    for trusted in (None, exactly(other)):
        with (
            Client(url, tls=trusted, retry_for_s=0) as client,
            pytest.raises(ServerUnavailable, match="certificate verify failed"),
        ):
            client.predict(png(200))


def encrypted(pem: bytes) -> bytes:
    """The same key with a password."""
    key = serialization.load_pem_private_key(pem, None)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(
        serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"secret")
    )


def test_files_that_cannot_be_used_are_named(tls: Tls, tmp_path: Path) -> None:
    tls.check()
    (tmp_path / "other").mkdir()
    _, other_key = self_signed(tmp_path / "other")
    locked = tmp_path / "locked.pem"
    locked.write_bytes(encrypted(tls.key.read_bytes()))
    for wrong in (
        Tls(tls.cert, tmp_path / "gone.pem"),
        Tls(tls.key, tls.key),
        Tls(tls.cert, other_key),
        Tls(tls.cert, locked),
    ):
        with pytest.raises(InvalidInput, match="two PEM files that belong together"):
            wrong.check()
