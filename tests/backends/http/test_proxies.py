"""Which requests go through a proxy."""

from __future__ import annotations

import pytest

from chatport.backends.http.dial import Origin
from chatport.backends.http.proxies import Proxy, proxy_for

PROXY = {"https_proxy": "http://me:p%40ss@proxy.test:3128", "HTTP_PROXY": "proxy.test"}


def test_each_scheme_has_its_variable() -> None:
    https = proxy_for("https", "api.test", 443, PROXY)
    assert https == Proxy("proxy.test", 3128, b"Basic bWU6cEBzcw==")
    assert proxy_for("http", "api.test", 80, PROXY) == Proxy("proxy.test", 80)
    assert proxy_for("https", "api.test", 443, {"ALL_PROXY": "http://p:1"}) == Proxy("p", 1)
    assert proxy_for("https", "api.test", 443, {}) is None


def test_a_password_is_in_no_representation() -> None:
    proxy = proxy_for("https", "api.test", 443, PROXY)
    assert "p@ss" not in repr(proxy)
    assert "bWU6" not in repr(proxy)


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


@pytest.mark.parametrize("value", ["socks5://p:1", "https://p:1", "http://:1", "http://p:port"])
def test_a_proxy_that_can_not_be_used_is_told_without_its_value(value: str) -> None:
    with pytest.raises(ValueError, match="https_proxy") as caught:
        proxy_for("https", "api.test", 443, {"https_proxy": value})
    assert value not in str(caught.value)


def test_a_plain_proxy_is_asked_for_the_whole_url() -> None:
    proxied = Origin(scheme="http", host="api.test", port=8080, proxy=Proxy("p", 1))
    assert proxied.target("/v1/x") == "http://api.test:8080/v1/x"
    assert Origin(scheme="https", host="::2", port=443, proxy=Proxy("p", 1)).target("/v1/x") == "/v1/x"
    assert Origin(scheme="https", host="::2", port=443).authority == "[::2]"
