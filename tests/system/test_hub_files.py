"""Models of the hub by name: on a cache in the hub's layout, and on a small hub at this machine's own address."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from arbitrage.core.errors import CheckpointError, ConfigError
from arbitrage.core.files import fingerprint
from arbitrage.pairs.config import read_pair
from arbitrage.pairs.hf import HFModel
from arbitrage.pairs.hub import HubFile, local_path
from arbitrage.pairs.llamacpp import LlamaCppModel
from arbitrage.pairs.served import LlamaServerModel

constants = pytest.importorskip("huggingface_hub.constants")
NAME = "hub:owner/name/model.gguf"
CONTENT = b"GGUF weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def in_cache(folder, content=CONTENT, file="model.gguf"):
    """Lay a file out as the hub's cache does."""
    repository = folder / "models--owner--name"
    blob, pointer = repository / "blobs" / hashlib.sha256(content).hexdigest(), repository / "snapshots" / COMMIT / file
    for path in (blob, pointer, repository / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    pointer.symlink_to(blob)
    (repository / "refs" / "main").write_text(COMMIT)
    return pointer


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache, without a connection."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


class SmallHub(BaseHTTPRequestHandler):
    """Serves one file of one repository, as the hub does."""

    content = CONTENT
    sha256 = SHA256

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        if self.answer():
            self.wfile.write(self.content)

    def answer(self):
        repository, _, file = self.path.strip("/").partition("/resolve/main/")
        error = "RepoNotFound" if repository != "owner/name" else "" if file == "model.gguf" else "EntryNotFound"
        headers = {"X-Error-Code": error} if error else {"ETag": f'"{self.sha256}"', "X-Repo-Commit": COMMIT}
        self.send_response(404 if error else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0" if error else str(len(self.content)))
        self.end_headers()
        return not error

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, cache):
    """A connection to :class:`SmallHub`, and an empty cache."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), SmallHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    yield cache
    server.shutdown()
    server.server_close()


def test_a_file_in_the_cache_needs_no_connection(cache):
    pointer = in_cache(cache)
    assert local_path(NAME) == str(pointer)
    assert local_path("models/model.gguf") == "models/model.gguf"
    nested = in_cache(cache, b"other", "q4/other.gguf")
    assert HubFile.parse("hub:owner/name/q4/other.gguf").local() == nested


def test_a_file_is_downloaded_once(hub, monkeypatch):
    first = local_path(NAME)
    assert first.startswith(str(hub))
    assert Path(first).read_bytes() == CONTENT
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert local_path(NAME) == first


def test_a_file_with_another_checksum_is_removed(hub, monkeypatch):
    monkeypatch.setattr(SmallHub, "sha256", "0" * 64)
    with pytest.raises(
        CheckpointError, match=rf"path '{NAME}': the downloaded file has the checksum {SHA256}, expected 0"
    ):
        local_path(NAME)
    monkeypatch.setattr(SmallHub, "sha256", SHA256)
    assert Path(local_path(NAME)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hub:owner/none/model.gguf", r"path 'hub:owner/none/model.gguf': the hub has no repository 'owner/none'"),
        ("hub:owner/name/none.gguf", r"the repository 'owner/name' has no file 'none.gguf' \(choose one from https"),
    ],
)
def test_a_name_that_the_hub_lacks_is_one_clear_line(hub, name, message):
    with pytest.raises(CheckpointError, match=message) as error:
        local_path(name)
    assert "\n" not in str(error.value)


def test_without_a_connection_the_remedy_is_named(cache):
    message = r"path 'hub:owner/name/model.gguf': the file is not in the cache, and the hub cannot be reached \(connect"
    with pytest.raises(CheckpointError, match=message):
        local_path(NAME)


@pytest.mark.parametrize(
    "name",
    [
        "hub:",
        "hub:owner/name",
        "hub:model.gguf",
        "hub:owner/name/model.bin",
        "hub:owner/../model.gguf",
        "hub:owner//a.gguf",
    ],
)
def test_a_name_of_another_form_is_refused_when_the_pair_is_read(tmp_path, name):
    path = tmp_path / "pair.toml"
    path.write_text(f'[draft]\npath = "{name}"\n[target]\npath = "t.gguf"\n')
    with pytest.raises(ConfigError, match=r"pair.toml \[draft\]: path must name a GGUF file of the hub, got 'hub:"):
        read_pair(path)


def test_models_of_the_hub_are_identified_by_name_and_weights(cache, tmp_path):
    pointer = in_cache(cache)
    local = tmp_path / "model.gguf"
    local.write_bytes(CONTENT)
    path = tmp_path / "pair.toml"
    path.write_text(f'[draft]\npath = "{NAME}"\n[target]\npath = "{NAME}"\nengine = "hf"\n')
    config = read_pair(path)
    assert isinstance(config.draft, LlamaCppModel)
    assert isinstance(config.target, HFModel)
    assert (config.draft.display_name, config.draft.local_path) == ("model", str(pointer))
    assert config.draft.identity == {"path": NAME, "engine": "llamacpp"}
    assert fingerprint(pointer) == fingerprint(local) != ""


def test_the_configuration_of_the_small_pair_names_files_of_the_hub():
    config = read_pair(Path(__file__).parents[2] / "configs" / "qwen2.5-coder.toml")
    for model, size in ((config.draft, "0.5"), (config.target, "1.5")):
        file = f"qwen2.5-coder-{size}b-instruct-q4_k_m"
        repository = f"Qwen/Qwen2.5-Coder-{size}B-Instruct-GGUF"
        assert HubFile.parse(model.path) == HubFile(repository=repository, file=f"{file}.gguf")
        assert (model.display_name, model.engine) == (file, "llamacpp")
        assert "step by step" in model.system
        assert model.system.endswith(r"in \boxed{}.")
    assert (config.prm, config.default_method) == (None, "confidence")


def test_a_server_takes_no_file_of_the_hub():
    with pytest.raises(ConfigError, match="engine 'llama-server' takes no file of the hub, got path = 'hub:"):
        LlamaServerModel(path=NAME, url="http://127.0.0.1:1")
