"""Which requests go through a proxy."""

from __future__ import annotations

import io
import traceback

import pytest
from rich.console import Console
from rich.pretty import Pretty

from chatport.backends.http.dial import Origin
from chatport.backends.http.proxies import Kind, Proxy, proxy_for

PROXY = {"https_proxy": "http://me:p%40ss@proxy.test:3128", "HTTP_PROXY": "proxy.test"}


def test_each_scheme_has_its_variable() -> None:
    https = proxy_for("https", "api.test", 443, PROXY)
    assert https == Proxy("proxy.test", 3128, (b"me", b"p@ss"))
    assert https.authorization == b"Basic bWU6cEBzcw=="
    assert proxy_for("http", "api.test", 80, PROXY) == Proxy("proxy.test", 80)
    assert proxy_for("https", "api.test", 443, {"ALL_PROXY": "http://p:1"}) == Proxy("p", 1)
    assert proxy_for("https", "api.test", 443, {}) is None


@pytest.mark.parametrize(
    ("value", "proxy"),
    [
        ("https://p", Proxy("p", 443, None, Kind.HTTPS)),
        ("HTTPS://p:8443/", Proxy("p", 8443, None, Kind.HTTPS)),
        ("socks5://p", Proxy("p", 1080, None, Kind.SOCKS5)),
        ("socks5h://me@[::2]:9050", Proxy("::2", 9050, (b"me", b""), Kind.SOCKS5H)),
        ("socks5h://:%2f%FF@p", Proxy("p", 1080, (b"", b"/\xff"), Kind.SOCKS5H)),
        ("socks5://m\udce4:b\u00fccher@p", Proxy("p", 1080, (b"m\xe4", b"b\xc3\xbccher"), Kind.SOCKS5)),
    ],
)
def test_each_kind_has_its_port_and_credentials_are_bytes(value: str, proxy: Proxy) -> None:
    assert proxy_for("https", "api.test", 443, {"ALL_PROXY": value}) == proxy


def test_a_password_is_in_no_representation() -> None:
    proxy = proxy_for("https", "api.test", 443, PROXY)
    console = Console(file=io.StringIO())
    console.print(Pretty(Origin(scheme="https", host="api.test", port=443, proxy=proxy)))
    for text in (repr(proxy), console.file.getvalue()):  # type: ignore[attr-defined]
        assert "proxy.test" in text
        assert "p@ss" not in text
        assert "bWU6" not in text


@pytest.mark.parametrize("host", ["localhost", "api.localhost", "127.0.0.1", "127.8.9.1", "::1"])
def test_loopback_never(host: str) -> None:
    assert proxy_for("https", host, 443, PROXY) is None


@pytest.mark.parametrize(
    ("exempt", "direct"),
    [
        ("*", True),
        ("api.test", True),
        (".test", True),
        ("other, test", True),
        ("api.test:443", True),
        ("api.test:444", False),
        ("pi.test", False),
        ("", False),
        (",,", False),
    ],
)
def test_no_proxy_by_name(exempt: str, direct: bool) -> None:
    assert (proxy_for("https", "api.test", 443, {**PROXY, "NO_PROXY": exempt}) is None) == direct


@pytest.mark.parametrize(("exempt", "direct"), [("10.0.0.0/8", True), ("10.1.2.3", True), ("10.1.2.4", False)])
def test_no_proxy_by_address(exempt: str, direct: bool) -> None:
    assert (proxy_for("https", "10.1.2.3", 443, {**PROXY, "no_proxy": exempt}) is None) == direct


@pytest.mark.parametrize(
    "value",
    [
        "socks4://p:1",
        "socks4a://p:1",
        "socks://p:1",
        "ftp://p:1",
        "http://:1",
        "http://p:port",
        "https://me:hunter/2@p:1",
        "socks5://me:12/hunter@p:1",
        "socks5://me:1?hunter@p:1",
        "socks5://me:1#hunter@p:1",
        "socks5://[me:hunter@p:1",
        f"socks5://me:{'hunter' * 50}@p:1",
        f"socks5h://{'hunter' * 50}@p:1",
    ],
)
def test_a_proxy_that_can_not_be_used_is_told_without_its_value(value: str) -> None:
    with pytest.raises(ValueError, match="https_proxy") as caught:
        proxy_for("https", "api.test", 443, {"https_proxy": value})
    told = "".join(traceback.format_exception(caught.value, limit=0))
    assert value not in told
    assert "hunter" not in told
    assert ("socks5h://" in told) != (len(value) > 255)


def test_a_plain_proxy_is_asked_for_the_whole_url() -> None:
    proxied = Origin(scheme="http", host="api.test", port=8080, proxy=Proxy("p", 1))
    assert proxied.target("/v1/x") == "http://api.test:8080/v1/x"
    within = Origin(scheme="http", host="api.test", port=8080, proxy=Proxy("p", 1, None, Kind.HTTPS))
    assert within.target("/v1/x") == "http://api.test:8080/v1/x"
    tunnel = Origin(scheme="http", host="api.test", port=8080, proxy=Proxy("p", 1, None, Kind.SOCKS5))
    assert tunnel.target("/v1/x") == "/v1/x"
    assert Origin(scheme="https", host="::2", port=443, proxy=Proxy("p", 1)).target("/v1/x") == "/v1/x"
    assert Origin(scheme="https", host="::2", port=443).authority == "[::2]"
