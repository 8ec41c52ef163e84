"""The configuration: what is read, and every way in which it can be wrong, with file, line, key and sentence."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from chatport.config import (
    DEFAULT_MODEL,
    ConfigError,
    LlamaModel,
    OnDemandConfig,
    PriceConfig,
    RoutedModel,
    ScriptedModel,
    ServerConfig,
    StoreConfig,
    home_of,
    load,
)
from chatport.config.pricing import scaled
from chatport.config.reference import BEGIN, renewed
from chatport.config.schema import FLAG_CONTEXT
from chatport.config.source import key_lines

UPSTREAM = """
[[models]]
id = "mini"
fallbacks = ["echo"]
[[models.targets]]
provider = "openai"
model = "gpt-4o-mini"
weight = 3
[[models.targets]]
backend = "openai"
base_url = "http://127.0.0.1:9000/v1"
api_keys = ["sk-1", "${SECOND}"]
priority = 1
extra_params = "forward"
extra_headers = { "X-Title" = "${SECOND}" }
lacks = ["vision"]
connect_seconds = 1.5
[models.targets.extra_body]
top_k = 40
nested = { deep = ["${SECOND}"] }
[[models]]
id = "echo"
backend = "scripted"
"""

DOCS = Path(__file__).parent.parent / "docs"

ECHO = '[[models]]\nid = "echo"\nbackend = "scripted"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "chatport.toml"


def test_without_anything_the_small_model_is_served(tmp_path: Path) -> None:
    config = load(None, {"CHATPORT_HOME": str(tmp_path)})
    assert config.models == (DEFAULT_MODEL,)
    assert (DEFAULT_MODEL.id, DEFAULT_MODEL.aliases) == ("smollm2-135m", ("gpt-4", "gpt-3.5-turbo"))
    assert (DEFAULT_MODEL.slots, DEFAULT_MODEL.default_max_tokens) == (4, 512)
    assert DEFAULT_MODEL.system_prompt == "You are a helpful assistant."
    assert (config.server, config.store) == (ServerConfig(), StoreConfig())
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8000)
    assert config.store_url == f"sqlite:///{tmp_path}/chatport.db"
    assert config.chosen_by == "nobody"


def test_a_whole_file(file: Path) -> None:
    file.write_text(
        """
        [server]
        port = 0
        cors_origins = ["https://app.example"]
        trusted_proxies = ["127.0.0.1", "10.0.0.0/8", "::1", "unix"]
        drain_seconds = 5
        [store]
        url = "postgresql://me@db/chatport"
        durability = "power"
        [on_demand]
        enabled = false
        max_memory_bytes = 8_000_000_000
        [[models]]
        id = "big"
        backend = "llama"
        path = "models/big.gguf"
        aliases = ["gpt-4"]
        gpu_layers = 20
        context = 4096
        [[models]]
        id = "echo"
        backend = "scripted"
        reply = ["a", "b"]
        delay_ms = 5
        fail_status = 429
        """
    )
    config = load(file, {})
    assert config.server == ServerConfig(
        port=0,
        cors_origins=("https://app.example",),
        trusted_proxies=("127.0.0.1", "10.0.0.0/8", "::1", "unix"),
        drain_seconds=5,
    )
    assert config.store == StoreConfig(url="postgresql://me@db/chatport", durability="power")
    assert config.on_demand == OnDemandConfig(enabled=False, max_memory_bytes=8_000_000_000)
    assert config.models == (
        LlamaModel(
            id="big", path=str(file.parent / "models/big.gguf"), aliases=("gpt-4",), gpu_layers=20, context=4096
        ),
        ScriptedModel(id="echo", reply=("a", "b"), delay_ms=5, fail_status=429),
    )
    assert (config.source, config.chosen_by) == (file, "file")


def test_limits(file: Path) -> None:
    assert load(None, {"CHATPORT_HOME": str(file.parent)}).limits == ()
    file.write_text(
        '[[limits]]\nscope = "owner:Büro 7:a"\nrpm = "${RPM}"\n[[limits]]\nscope="key:*"\ntpd = 5\nmode = "report"'
    )
    owner, keys = load(file, {"RPM": "60"}).limits
    assert (owner.subject, owner.amounts, owner.mode) == (("owner", "Büro 7:a"), {"rpm": 60}, "enforce")
    assert (keys.subject, keys.amounts, keys.mode) == (("key", "*"), {"tpd": 5}, "report")


def test_a_file_without_models_keeps_the_default_one(file: Path) -> None:
    file.write_text("[server]\nport = 9000\n")
    config = load(file, {})
    assert config.models == (DEFAULT_MODEL,)
    assert config.chosen_by == "nobody"


def test_flags_win_over_the_file(file: Path) -> None:
    file.write_text('[server]\nhost = "::1"\nport = 9000\nlog_level = "debug"\n' + ECHO)
    server = load(file, {}, host="0.0.0.0", port=9001, log_level=None).server
    assert (server.host, server.port, server.log_level) == ("0.0.0.0", 9001, "debug")


def named(name: str, path: str) -> LlamaModel:
    """What `--model` makes of a name."""
    return LlamaModel(id=name, path=path, aliases=("gpt-4", "gpt-3.5-turbo"), context=FLAG_CONTEXT)


@pytest.mark.parametrize(
    ("wanted", "model"),
    [
        ("smollm2-135m", DEFAULT_MODEL),
        ("other", named("other", "other")),
        ("/m/My Model Q4.gguf", named("My-Model-Q4", "/m/My Model Q4.gguf")),
        ("/a/b/c.gguf", named("c", "/a/b/c.gguf")),
        ("own/repo/My Model.gguf", named("own/repo/My-Model", "own/repo/My Model.gguf")),
        ("own/repo/sub/x", named("own/repo/sub/x", "own/repo/sub/x")),
        (
            "/m/gpt-4.gguf",
            LlamaModel(id="gpt-4", path="/m/gpt-4.gguf", aliases=("gpt-3.5-turbo",), context=FLAG_CONTEXT),
        ),
    ],
)
def test_the_model_flag_replaces_every_configured_model(wanted: str, model: LlamaModel, file: Path) -> None:
    file.write_text(ECHO)
    config = load(file, {}, model=wanted)
    assert config.models == (model,)
    assert config.chosen_by == "flag"


def test_a_relative_model_flag_is_seen_from_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (model,) = load(None, {}, model="x.gguf").models
    assert isinstance(model, LlamaModel)
    assert model.path == str(tmp_path / "x.gguf")


def test_a_file_wins_over_a_hubs_file_of_that_name(file: Path) -> None:
    path = "models/big/x.gguf"
    file.write_text(f'[[models]]\nid = "big"\nbackend = "llama"\npath = "{path}"\n')
    assert load(file, {}).models == (LlamaModel(id="big", path=path),)
    there = file.parent / path
    there.parent.mkdir(parents=True)
    there.write_bytes(b"GGUF")
    assert load(file, {}).models == (LlamaModel(id="big", path=str(there)),)


def test_the_environment_may_name_the_file_and_the_home(file: Path, tmp_path: Path) -> None:
    file.write_text(ECHO)
    config = load(None, {"CHATPORT_CONFIG": str(file), "CHATPORT_HOME": str(tmp_path / "home")})
    assert (config.source, config.home) == (file, tmp_path / "home")
    assert config.models_folder == tmp_path / "home" / "models"


def test_home_is_absolute_and_not_the_working_folder_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert home_of({"CHATPORT_HOME": "here"}) == Path.cwd() / "here"
    assert home_of({"CHATPORT_HOME": ""}).name == "chatport"
    assert home_of({}).is_absolute()


def test_variables_are_filled_in(file: Path) -> None:
    file.write_text(
        '[server]\nport = "${PORT}"\ncors_origins = ["https://${NAME}.example"]\n'
        '[store]\nurl = "postgresql://me:${PASSWORD}@db/x"\n'
        '[[models]]\nid = "echo"\nbackend = "scripted"\nreply = ["costs $${5} $5"]\n'
    )
    config = load(file, {"PORT": "9000", "NAME": "app", "PASSWORD": "p"})
    assert (config.server.port, config.server.cors_origins) == (9000, ("https://app.example",))
    assert config.store.url == "postgresql://me:p@db/x"
    assert config.models == (ScriptedModel(id="echo", reply=("costs ${5} $5",)),)


FAULTS: list[tuple[str, int | None, str, str]] = [
    ("[server]\nport = 0x1ffff", 2, "server.port", "131071 is not allowed; allowed: a whole number from 0 to 65535."),
    ('[server]\n\nport = "80"', 3, "server.port", '"80" is not allowed; allowed: a whole number from 0 to 65535.'),
    ("[server]\nport = true", 2, "server.port", "true is not allowed"),
    ("[server]\nport = 1.5", 2, "server.port", "1.5 is not allowed"),
    (
        "[server]\nidle_seconds = 0",
        2,
        "server.idle_seconds",
        "0 is not allowed; allowed: a number above 0, up to 86400.",
    ),
    ("[server]\nidle_seconds = inf", 2, "server.idle_seconds", "Infinity is not allowed"),
    ("[server]\ndrain_seconds = nan", 2, "server.drain_seconds", "NaN is not allowed"),
    ('[server]\nhost = ""', 2, "server.host", '"" is not allowed; allowed: text that is not empty.'),
    ('[server]\nlog_level = "loud"', 2, "server.log_level", 'allowed: "debug" or "error" or "info" or "warning".'),
    ('[server]\ncors_origins = "*"', 2, "server.cors_origins", '"*" is not allowed; allowed: a list of strings.'),
    (
        '[server]\ntrusted_proxies = ["::1", "unix",\n"10.0.0.1/8"]',
        2,
        "server.trusted_proxies[2]",
        '"10.0.0.1/8" is not allowed; allowed: an address such as "127.0.0.1" or "::1", a network such as ',
    ),
    ('[server]\ntrusted_proxies = ["${A}"]', 2, "server.trusted_proxies[0]", '"${A}" is not allowed; allowed: an addr'),
    (
        '[server]\ntrusted_proxies = "*"',
        2,
        "server.trusted_proxies",
        "allowed: a list of strings, each an address such",
    ),
    ("[server]\nprot = 1", 2, "server.prot", 'there is no such key; did you mean "port"?'),
    ("[server]\n[server.deep]\nx = 1", 2, "server.deep", "there is no such key"),
    ("server = 1", 1, "server", "1 is not allowed here; write a table, [server]."),
    ("[severs]\nx = 1", 1, "severs", 'there is no such key; did you mean "server"?'),
    ("zzz = 1", 1, "zzz", "there is no such key; allowed: ledger, limits, models, on_demand, server, store."),
    ('[store]\nurl = "mysql://u:s3cret@h/d"', 2, "store.url", 'the value is not allowed; allowed: "sqlite:///PATH" or'),
    ("[ledger]\nlease_seconds = 0", 2, "ledger.lease_seconds", "0 is not allowed; allowed: a number from 1 to 3600."),
    ('[ledger]\ncurrency = "yuan"', 2, "ledger.currency", "allowed: three capital letters, such as USD or CNY."),
    ("[on_demand]\nenabled = 1", 2, "on_demand.enabled", "1 is not allowed; allowed: true or false."),
    ("[on_demand]\nmax_loaded = 0", 2, "on_demand.max_loaded", "allowed: a whole number from 1 to 1000."),
    ("[models]\nid = 1", 1, "models", "each model is a table of its own, [[models]], and there is at least one."),
    ("models = []", 1, "models", "there is at least one"),
    ('[[models]]\nid = "a"', 1, "models[0].backend", 'is missing; allowed: "llama" or "scripted".'),
    ('[[models]]\nid = "a"\nbackend = "vllm"', 3, "models[0].backend", '"vllm" is no backend; allowed: "llama" or'),
    ("[[models]]\nbackend = 1", 2, "models[0].backend", "1 is no backend"),
    (
        ECHO + '[[models]]\nid = "b"\nbackend = "llama"',
        4,
        "models[1].path",
        "is missing; allowed: a name that `chatport mo",
    ),
    ('[[models]]\nbackend = "scripted"', 1, "models[0].id", "is missing; allowed: 1 to 128 characters without white"),
    ('[[models]]\nbackend = "scripted"\nid = "a b"', 3, "models[0].id", '"a b" is not allowed; allowed: 1 to 128'),
    ('[[models]]\nbackend = "scripted"\nid = "a\\n"', 3, "models[0].id", r'"a\n" is not allowed'),
    (ECHO + "reply = [1]", 4, "models[0].reply", "[1] is not allowed; allowed: a list of strings."),
    (
        ECHO + "fail_status = 200",
        4,
        "models[0].fail_status",
        "200 is not allowed; allowed: a whole number from 400 to 599.",
    ),
    (ECHO + "slots = 4", 4, "models[0].slots", "there is no such key; allowed: aliases,"),
    (ECHO + 'aliases = ["x", "x"]', 4, "models[0].aliases", 'the name "x" is already given by models[0].aliases.'),
    (
        ECHO + '[[models]]\nbackend = "scripted"\nid = "echo"',
        6,
        "models[1].id",
        'the name "echo" is already given by models[0].id.',
    ),
    (
        '[[models]]\nid = "a"\nbackend = "llama"\npath = "x"\nslots = 0\n',
        5,
        "models[0].slots",
        "0 is not allowed; allowed: a whole number from 1 to 256.",
    ),
    (
        '[[models]]\nid = "a"\nbackend = "llama"\npath = "x"\ngpu_layers = "all"\n',
        5,
        "models[0].gpu_layers",
        '"all" is not allowed; allowed: a whole number from 0 to 10000 or "auto".',
    ),
    ('[server]\nhost = "${NOT_SET}"', 2, "server.host", "the environment variable NOT_SET is not set; set it, or"),
    (
        '[server]\nhost = "${}"',
        2,
        "server.host",
        'holds a "${" that begins no ${VARIABLE}; for the two characters write',
    ),
    ('[server]\nhost = "${A"', 2, "server.host", 'holds a "${" that begins no ${VARIABLE}'),
    (ECHO + 'reply = ["x", "${NOT_SET}"]', 4, "models[0].reply[1]", "NOT_SET is not set"),
    (
        '[[limits]]\nscope = "team:x"\nrpm = 1',
        2,
        "limits[0].scope",
        '"team:x" is not allowed; allowed: "key:ID", "owner:NAME", "model:ID" or "user:KEY_ID", or "*" in place',
    ),
    ('[[limits]]\nscope = "key:"\nrpm = 1', 2, "limits[0].scope", '"key:" is not allowed'),
    ("[[limits]]\nrpm = 1", 1, "limits[0].scope", 'is missing; allowed: "key:ID"'),
    ('[[limits]]\nscope = "key:*"\nrpm = 0', 3, "limits[0].rpm", "0 is not allowed; allowed: a whole number from 1 to"),
    ('[[limits]]\nscope = "key:*"\nrpn = 1', 3, "limits[0].rpn", 'there is no such key; did you mean "rpm"?'),
    ('[[limits]]\nscope = "key:*"\nmode = "report"', 1, "limits[0]", "limits nothing; give at least one of rpm, rph,"),
    (
        '[[limits]]\nscope = "key:*"\nrpm = 1\n[[limits]]\nscope = "key:*"\ntpm = 1',
        5,
        "limits[1].scope",
        '"key:*" has a table already; write its limits there.',
    ),
    ("limits = 60", 1, "limits", "each limit is a table of its own, [[limits]]."),
    ("[server]\nport = 80 80", 2, "", "is not TOML: Expected newline or end of document after a statement."),
    ("[server]\nport = 1\nport = 2", 3, "", "is not TOML: Cannot overwrite a value."),
    ("[server\n", 1, "", "is not TOML"),
    ("[server]\nhost = 127.0.0.1", 2, "", "Strings stand in quotes"),
]


@pytest.mark.parametrize(("text", "line", "key", "sentence"), FAULTS)
def test_a_fault_names_file_line_key_and_what_is_allowed(
    text: str, line: int | None, key: str, sentence: str, file: Path
) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(file, {"A": "x"})
    (fault,) = error.value.faults
    assert (fault.file, fault.line, fault.key) == (file, line, key)
    assert sentence in fault.sentence
    assert str(error.value).startswith(f"{file}:{line}: {key}" if key else f"{file}:{line}: is not TOML")
    assert "s3cret" not in str(error.value)


def test_every_fault_is_told_at_once_in_the_files_order(file: Path) -> None:
    file.write_text("[[models]]\nid = 1\n[server]\nport = -1\nhots = 1\n")
    with pytest.raises(ConfigError) as error:
        load(file, {})
    assert [(fault.line, fault.key) for fault in error.value.faults] == [
        (1, "models[0].backend"),
        (4, "server.port"),
        (5, "server.hots"),
    ]


def test_what_a_variable_held_is_never_repeated(file: Path) -> None:
    file.write_text('[server]\nport = "${SECRET}"\nlog_level = "${SECRET}"\ncors_origins = ["${SECRET}", 1]\n')
    with pytest.raises(ConfigError) as error:
        load(file, {"SECRET": "hunter2"})
    assert len(error.value.faults) == 3
    assert "hunter2" not in str(error.value)
    assert '"${SECRET}" is not allowed' in str(error.value)


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ({"port": 70_000}, "--port: 70000 is not allowed; allowed: a whole number from 0 to 65535."),
        ({"host": ""}, '--host: "" is not allowed'),
        ({"log_level": "loud"}, '--log-level: "loud" is not allowed; allowed: "debug"'),
        ({"model": ""}, '--model: "" names no model; give a name or a .gguf file.'),
    ],
)
def test_a_flag_is_held_to_the_same_rules(flag: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(None, {}, **flag)  # type: ignore[arg-type]
    assert str(error.value).startswith(sentence)


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: can't be read: No such file or directory\.$"):
        load(tmp_path / "gone.toml", {})
    with pytest.raises(ConfigError, match=r"can't be read: Is a directory\.$"):
        load(tmp_path, {})


def test_a_file_that_is_not_utf8_is_told_with_its_line(file: Path) -> None:
    file.write_bytes('[server]\nhost = "é"\n'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"chatport\.toml:2: is not UTF-8 text"):
        load(file, {})


TRICKY = '''\
# [[models]]
top = 1
[ server ]   # the table
text = """
[[models]]
port = 1
quote \\""" still
"""
raw = \'\'\'
x = 2
\'\'\'
list = [  # ]
  "]", "[",
  { a = 1 },
]
"quoted key" = '#'
a.b = {}
[[models]]
id = "x" # ["
[[models]]

id = "y"
'''


def test_the_lines_of_keys_are_found_around_strings_lists_and_comments() -> None:
    tomllib.loads(TRICKY)
    assert dict(key_lines(TRICKY)) == {
        ("top",): 2,
        ("server",): 3,
        ("server", "text"): 4,
        ("server", "raw"): 9,
        ("server", "list"): 12,
        ("server", "quoted key"): 16,
        ("server", "a", "b"): 17,
        ("models", 0): 18,
        ("models", 0, "id"): 19,
        ("models", 1): 20,
        ("models", 1, "id"): 22,
    }


def test_the_file_in_the_documentation_is_good(file: Path) -> None:
    page = (DOCS / "configuration.md").read_text("utf-8")
    file.write_text(page.partition("```toml\n")[2].partition("```")[0])
    models = load(file, {"CHATPORT_PORT": "8000"}).models
    assert models[0] == msgspec.structs.replace(DEFAULT_MODEL, system_prompt=None, default_max_tokens=None)


def test_the_documentation_lists_every_setting() -> None:
    """Renew with: python -m chatport.config.reference docs/configuration.md"""
    page = (DOCS / "configuration.md").read_text("utf-8")
    assert BEGIN in page
    assert renewed(page) == page


def test_a_model_with_targets(file: Path) -> None:
    file.write_text(UPSTREAM)
    config = load(file, {"OPENAI_API_KEY": "sk-openai", "SECOND": "sk-2"})
    model = config.models[0]
    assert isinstance(model, RoutedModel)
    first, second = model.targets
    assert (first.base_url, first.keys, first.model, first.weight) == (
        "https://api.openai.com/v1",
        ("sk-openai",),
        "gpt-4o-mini",
        3,
    )
    assert (second.base_url, second.keys) == ("http://127.0.0.1:9000/v1", ("sk-1", "sk-2"))
    assert (second.priority, second.extra_params, second.connect_seconds) == (1, "forward", 1.5)
    assert second.extra_headers == {"X-Title": "sk-2"}
    assert second.extra_body == {"top_k": 40, "nested": {"deep": ["sk-2"]}}
    assert type(second.extra_body["nested"]["deep"][0]) is str


def test_no_key_is_in_a_representation(file: Path) -> None:
    file.write_text(UPSTREAM)
    config = load(file, {"OPENAI_API_KEY": "sk-openai", "SECOND": "sk-2"})
    assert "sk-" not in repr(config)
    assert "sk-" not in str(list(config.models[0].targets[1].__rich_repr__()))  # type: ignore[union-attr]


LOCAL = '[[models]]\nid = "m"\n[[models.targets]]\n'


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        (LOCAL, 3, "models[0].targets[0]", "is nowhere: give a provider"),
        (LOCAL + 'backend = "openai"', 3, "models[0].targets[0]", "is nowhere"),
        (
            LOCAL + 'provider = "openia"',
            4,
            "models[0].targets[0].provider",
            '"openia" is not allowed; allowed: "openai" or',
        ),
        (LOCAL + 'provider = "openai"', 3, "models[0].targets[0].api_key", "OPENAI_API_KEY"),
        (LOCAL + 'provider = "azure"\napi_key = "k"', 3, "models[0].targets[0].base_url", "one for each account"),
        (LOCAL + 'provider = "vllm"\npriorty = 1', 5, "models[0].targets[0].priorty", 'did you mean "priority"?'),
        (LOCAL + 'provider = "vllm"\nweight = 0', 5, "models[0].targets[0].weight", "a number above 0, up to 1000"),
        (LOCAL + 'provider = "vllm"\nlacks = ["sight"]', 5, "models[0].targets[0].lacks", 'one of "vision"'),
        (
            LOCAL + 'provider = "vllm"\n[models.targets.extra_headers]\na = 1',
            5,
            "models[0].targets[0].extra_headers",
            "",
        ),
        ('[[models]]\nid = "m"\ntargets = []', 3, "models[0].targets", "[[models.targets]]"),
        ('[[models]]\nid = "m"\ntargets = 5', 3, "models[0].targets", "[[models.targets]]"),
        ('[[models]]\nid = "m"', 1, "models[0].backend", "has [[models.targets]] instead"),
        ('[[models]]\n[[models.targets]]\nprovider = "vllm"', 1, "models[0].id", "is missing"),
        (LOCAL.replace('"m"', '"a*b"') + 'provider = "vllm"', 2, "models[0].id", "only at the end"),
        (
            '[[models]]\nid = "v/*"\naliases = ["x"]\n[[models.targets]]\nprovider = "vllm"',
            3,
            "models[0].aliases",
            "many",
        ),
        (
            '[[models]]\nid = "v/*"\n[[models.targets]]\nprovider = "vllm"\nmodel = "x"',
            5,
            "models[0].targets[0].model",
            "passes on",
        ),
        (
            '[[models]]\nid = "m"\nfallbacks = ["m"]\n[[models.targets]]\nprovider = "vllm"',
            3,
            "models[0].fallbacks",
            '"m" is no other model',
        ),
    ],
)
def test_what_is_wrong_with_targets(file: Path, text: str, line: int, key: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    (fault,) = caught.value.faults
    assert (fault.line, fault.key) == (line, key)
    assert words in fault.sentence


@pytest.mark.parametrize("given", ["http://me:secret@host/v1", "ftp://secret", "secret"])
def test_an_address_that_is_none_is_not_repeated(file: Path, given: str) -> None:
    file.write_text(f'{LOCAL}backend = "openai"\nbase_url = "{given}"')
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert "secret" not in str(caught.value)


def test_a_key_that_is_none_is_not_repeated(file: Path) -> None:
    file.write_text(f'{LOCAL}provider = "openai"\napi_keys = ["se cret"]')
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert "se cret" not in str(caught.value)


def test_a_price_is_exact(file: Path) -> None:
    price = "price = { prompt = 0.0375, completion = '1.1', cached = 0, reasoning = 1000000, request = 0.000000000001 }"
    file.write_text(ECHO + price)
    [model] = load(file, {}).models
    assert model.price is not None
    assert model.price.prompt == Decimal("0.0375")
    assert model.price.pico == {
        "prompt": 37_500,
        "completion": 1_100_000,
        "cached": 0,
        "reasoning": 10**12,
        "request": 1,
    }


def test_a_price_may_come_from_the_environment_and_for_models_of_every_kind(file: Path) -> None:
    table = "[models.price]\nprompt = '${PROMPT}'\ncompletion = 2\n"
    llama = '[[models]]\nid = "a"\nbackend = "llama"\npath = "a"\nprice_model = "openai/gpt-4o"\n'
    far = '[[models]]\nid = "b/*"\n[[models.targets]]\nbackend = "openai"\nbase_url = "http://h/v1"\n'
    file.write_text(llama + table + far + table)
    llama_model, far_model = load(file, {"PROMPT": "1.5"}).models
    assert llama_model.price_model == "openai/gpt-4o"
    assert llama_model.price == far_model.price == PriceConfig(prompt=Decimal("1.5"), completion=Decimal(2))


PER_TOKEN = "allowed: USD per million tokens: a number, or text, from 0 to 1000000 with up to 6 decimals."


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("price = 1", "models[0].price: 1 is not allowed here; write a table, [models.price]."),
        ("price = { prompt = 1 }", f"models[0].price.completion: is missing; {PER_TOKEN}"),
        (
            "[models.price]\nprompt = 0.0000001\ncompletion = 1",
            f"5: models[0].price.prompt: 1e-07 is not allowed; {PER_TOKEN}",
        ),
        (
            "[models.price]\nprompt = 1\ncompletion = -0.1",
            f"6: models[0].price.completion: -0.1 is not allowed; {PER_TOKEN}",
        ),
        ("price = { prompt = 1, completion = 1000000.1 }", f"completion: 1000000.1 is not allowed; {PER_TOKEN}"),
        ("price = { prompt = 1, completion = inf }", f"completion: Infinity is not allowed; {PER_TOKEN}"),
        ("price = { prompt = 1, completion = 'NaN' }", f'completion: "NaN" is not allowed; {PER_TOKEN}'),
        ("price = { prompt = true, completion = 1 }", f"prompt: true is not allowed; {PER_TOKEN}"),
        ("price = { prompt = 1, completion = '1e-999999999' }", f'"1e-999999999" is not allowed; {PER_TOKEN}'),
        ("price = { prompt = 1, completion = '${A}' }", f'completion: "${{A}}" is not allowed; {PER_TOKEN}'),
        ("price = { prompt = 1, completion = 1, request = 1e-13 }", "allowed: USD: a number, or text, from 0 to"),
        ("price = { prompt = 1, completion = 1, cache = 1 }", 'there is no such key; did you mean "cached"?'),
        ('price_model = "gpt-4o"', "PROVIDER/MODEL, as `chatport prices list` shows it."),
    ],
)
def test_what_is_no_price(file: Path, line: str, sentence: str) -> None:
    file.write_text(ECHO + line)
    with pytest.raises(ConfigError) as caught:
        load(file, {"A": "secret"})
    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value)


def test_every_fault_of_a_price_is_told(file: Path) -> None:
    file.write_text(ECHO + "price = { prompt = -1, cached = 0.12345678, reasoning = 'x', audio = 1 }")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert {fault.key for fault in caught.value.faults} == {
        f"models[0].price.{name}" for name in ("prompt", "cached", "reasoning", "audio", "completion")
    }


def test_a_family_has_no_one_entry_of_a_list(file: Path) -> None:
    target = '[[models.targets]]\nbackend = "openai"\nbase_url = "http://h/v1"\n'
    file.write_text('[[models]]\nid = "a/*"\nprice_model = "openai/gpt-4o"\n' + target)
    with pytest.raises(ConfigError, match=r'price_model: can\'t be given: "a/\*" stands for many models'):
        load(file, {})


@pytest.mark.parametrize("text", ["0", "0e999999999", "0.000001", "1E+6", "0.1500000000000000000000000000000000"])
def test_amounts_are_scaled_exactly(text: str) -> None:
    assert scaled(Decimal(text), 6) == (0 if Decimal(text) == 0 else Decimal(text) * 10**6)


def test_an_amount_with_many_digits_is_not_rounded_on_the_way() -> None:
    with pytest.raises(ValueError, match="more than 6 decimals"):
        scaled(Decimal("0.1000000000000000000000000000000000000000001"), 6)
