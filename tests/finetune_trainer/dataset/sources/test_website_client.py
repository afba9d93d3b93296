"""The reader of a web site never connects to an address that was not checked."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pytest_httpserver import HTTPServer

from finetune_trainer.dataset.sources import website_client
from finetune_trainer.dataset.sources.website_addresses import Site, look_up, why_not_public
from finetune_trainer.dataset.sources.website_client import WebsiteClient
from finetune_trainer.errors import SourceRejected


def client(find, allow_private: bool) -> WebsiteClient:
    return WebsiteClient("spec.x.website", 20, allow_private, find, sleep=lambda seconds: None)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("10.0.0.5", "private"),
        ("172.16.3.4", "private"),
        ("192.168.1.1", "private"),
        ("fd00::1", "private"),
        ("169.254.169.254", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("100.64.0.1", "reserved"),
        ("240.0.0.1", "private"),
        ("0.0.0.1", "private"),
        ("::ffff:10.0.0.5", "private"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:0a00:0005::1", "private"),
        ("93.184.215.14", ""),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", ""),
        ("64:ff9b::5db8:d70e", ""),
    ],
)
def test_addresses_that_strangers_must_not_make_us_ask_are_known(address, kind):
    assert why_not_public(address) == kind


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["93.184.215.14", "10.0.0.5"], ["::ffff:169.254.169.254"]]
)
def test_a_name_that_leads_inside_is_refused_without_a_connection(website, addresses):
    site = Site("http", "mill.example", website.port)

    with pytest.raises(
        SourceRejected, match=r"website.url: mill.example has the .* address .*; set allowPrivateAddresses"
    ):
        client(lambda host, port: addresses, allow_private=False).get(site, site.root)
    assert website.requests == []


def test_the_connection_goes_to_the_address_that_was_checked_under_the_name_of_the_host(website):
    website.page("/", "<p>home</p>")
    site = Site("http", "mill.example", website.port)
    asked: list[str] = []

    def find(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    answer = client(find, allow_private=True).get(site, site.root)

    assert answer.status == 200
    assert website.hosts == [f"mill.example:{website.port}"]
    assert asked == ["mill.example"]  # one lookup: the check and the connection cannot differ


def test_the_address_is_checked_again_after_a_redirect(website, monkeypatch):
    """A name that leads outside first, and inside when it is asked again."""
    website.moved("/", "/inside")
    website.page("/inside", "<p>inside</p>")
    site = Site("http", "mill.example", website.port)
    answers = [["127.0.0.1"], ["169.254.169.254"]]
    monkeypatch.setattr(
        website_client,
        "why_not_public",
        lambda address: "" if address == "127.0.0.1" else why_not_public(address),
    )

    with pytest.raises(SourceRejected, match=r"mill.example has the link-local address 169.254.169.254"):
        client(lambda host, port: answers.pop(0), allow_private=False).get(site, site.root)
    assert website.requests == ["/"]


def test_a_host_with_a_dead_address_is_tried_at_its_next_one(website, unused_port):
    website.page("/", "<p>home</p>")
    site = Site("http", "mill.example", website.port)

    answer = client(lambda host, port: ["127.0.0.9", "127.0.0.1"], allow_private=True).get(site, site.root)

    assert answer.status == 200


def test_a_name_that_cannot_be_asked_for_is_no_crash():
    site = Site("http", "mill..example", 80)

    answer = client(look_up, allow_private=True).get(site, site.root)

    assert answer.problem == "gives no answer (mill..example has no address), 5 times"


def test_no_proxy_and_no_password_file_of_this_machine_is_used(website, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ann password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    seen: list[str | None] = []
    website.before = lambda request: seen.append(request.headers.get("Authorization"))
    website.page("/", "<p>home</p>")
    site = Site("http", "127.0.0.1", website.port)

    assert client(lambda host, port: ["127.0.0.1"], allow_private=True).get(site, site.root).status == 200
    assert seen == [None]


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Certificate and key of mill.example, which signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mill.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("mill.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = tmp_path / "mill.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def secure(certificate: Path) -> Iterator[tuple[HTTPServer, list[str | None]]]:
    """A server over TLS, and the names that it was asked under."""
    names: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _, name, __: names.append(name)
    with HTTPServer(host="127.0.0.1", port=0, ssl_context=context) as server:
        server.expect_request("/").respond_with_data("home", content_type="text/html")
        yield server, names


def test_over_tls_the_certificate_is_that_of_the_name_and_not_of_the_address(secure, certificate):
    server, names = secure
    reader = client(lambda host, port: ["127.0.0.1"], allow_private=True)
    reader.trust(str(certificate))
    mine = Site("https", "mill.example", server.port)

    assert reader.get(mine, mine.root).body == b"home"
    assert names == ["mill.example"]

    other = Site("https", "other.example", server.port)
    assert "no answer (hostname 'other.example' doesn't match" in reader.get(other, other.root).problem
