"""Configuration files, datasets and names: bad input is one clear error."""

import json

import pytest

import arbitrage as arb
from arbitrage.core.errors import ConfigError
from arbitrage.datasets.files import read_file
from arbitrage.datasets.named import problems
from arbitrage.pairs.config import read_pair
from arbitrage.pairs.loading import load_prm
from arbitrage.pairs.roles import Role
from arbitrage.policies.spec import methods

PAIR = '[draft]\npath = "a"\n[target]\npath = "b"\n'
GGUF = PAIR + 'engine = "llamacpp"\n'
SERVED = PAIR + 'engine = "vllm"\nurl = "http://127.0.0.1:8102"\n'


def test_a_pair_is_named_after_its_file_and_finds_models_beside_it(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "mine.toml").write_text(PAIR)
    config = read_pair(tmp_path / "mine.toml")
    assert config.name == "mine"
    assert config.draft.path == str(tmp_path / "a")
    assert config.target.path == "b"
    assert config.router is None


@pytest.mark.parametrize("file", ["a.gguf", "a.GGUF", "a.Gguf"])
def test_a_gguf_file_is_run_by_llamacpp(tmp_path, file):
    (tmp_path / "pair.toml").write_text(PAIR.replace('"a"', f'"models/{file}"'))
    config = read_pair(tmp_path / "pair.toml")
    assert (config.draft.engine, config.target.engine) == ("llamacpp", "hf")
    assert config.draft.display_name == "a"


def test_a_scorer_is_no_gguf_file(tmp_path):
    (tmp_path / "pair.toml").write_text(PAIR + '[prm]\npath = "c.gguf"\n')
    with pytest.raises(ConfigError, match="a prm runs on the engine hf, vllm or sglang, got 'llamacpp'"):
        load_prm(read_pair(tmp_path / "pair.toml").prm)


def test_further_routers_have_names(tmp_path):
    (tmp_path / "pair.toml").write_text(PAIR + '[router]\npath = "c"\n[routers.second]\npath = "d"\n')
    config = read_pair(tmp_path / "pair.toml")
    models = [config.model(role) for role in ("draft", "router", "router:second", "router:third", "prm")]
    assert [model and model.path for model in models] == ["a", "c", "d", None, None]
    assert list(config.models) == ["draft", "target", "router", "router:second"]


@pytest.mark.parametrize(
    ("text", "kind", "name", "table", "file_stem", "is_scorer"),
    [
        ("draft", "draft", "", "draft", "draft", False),
        ("target", "target", "", "target", "target", False),
        ("prm", "prm", "", "prm", "prm", True),
        ("router", "router", "", "router", "router", True),
        ("router:second", "router", "second", "routers.second", "router-second", True),
        ("router:a:b", "router", "a:b", "routers.a:b", "router-a:b", True),
    ],
)
def test_a_role_is_taken_apart_and_put_together(text, kind, name, table, file_stem, is_scorer):
    role = Role.parse(text)
    assert (role.kind, role.name, role.table, role.file_stem) == (kind, name, table, file_stem)
    assert (str(role), role.is_scorer) == (text, is_scorer)


@pytest.mark.parametrize("text", ["drafter", "draft:second", "prm:x", ""])
def test_an_unknown_role_is_refused(text):
    with pytest.raises(
        ConfigError, match=f"role must be one of draft, target, prm, router or router:NAME, got '{text}'"
    ):
        Role.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[draft", "not TOML"),
        ('draft = "a"\n[target]\npath = "b"\n', "draft must be a table, got 'a'"),
        (PAIR + 'prm = "a"\n', r"\[target\]: unknown key 'prm'"),
        ("routers = 5\n" + PAIR, "routers must be a table, got 5"),
        (PAIR.replace('"a"', "3"), r"\[draft\]: path must be a string, got 3"),
        (GGUF + 'context_length = "4096"\n', r"\[target\]: context_length must be a whole number, got '4096'"),
        (SERVED + 'timeout_s = "long"\n', "timeout_s must be a number, got 'long'"),
        (PAIR + "prompt = 5\n", "prompt must be a string, got 5"),
        (GGUF + "sequences = true\n", "sequences must be a whole number, got True"),
        (
            SERVED + "server_env = {CUDA_VISIBLE_DEVICES = 0}\n",
            r"server_env must be a table of strings, got .*put numbers in quotes",
        ),
        (PAIR + '[[target.examples]]\nquestion = 5\nsolution = "x"\n', "question must be a string, got 5"),
        (PAIR + 'dtype = "half"\n', r"pair\.toml \[target\]: dtype must be one of"),
        ('[draft]\npath = "a"\n', "missing target"),
        ('[draft]\n[target]\npath = "b"\n', "missing path"),
        (PAIR + '[ruoter]\npath = "c"\n', "'ruoter'"),
        (PAIR.replace("path", "pth", 1), "did you mean 'path'"),
        (PAIR + 'dtype = "float8"\n', "float8"),
        (SERVED + 'serve = ["-x"]\n', r"pair\.toml \[target\]: 'serve' is now called 'server_args' \(rename the key\)"),
        (SERVED + 'env = {A = "1"}\n', "'env' is now called 'server_env'"),
        (PAIR + 'serve = ["-x"]\n', "'serve' is now called 'server_args'"),
        (SERVED + 'server_args = "-x"\n', r"\[target\]: server_args must be a list of strings, got '-x'"),
        (SERVED + "server_arg = []\n", "unknown key 'server_arg' .*did you mean 'server_args'"),
        (PAIR + "engine = 5\n", r"\[target\]: engine must be a string, got 5"),
        (
            PAIR + "gpu_layers = 4\n",
            r"\[target\]: engine 'hf' takes no gpu_layers, got 4 \(gpu_layers is an option of llamacpp\)",
        ),
        (PAIR + "sequences = 4\n", r"\[target\]: sequences of the engine 'hf' needs a cache of fixed size.*got 4"),
        (PAIR + "context_length = 512\n", r"context_length of the engine 'hf' needs .*512 \(leave .*static = true\)"),
        (PAIR + "static = true\nsequences = 0\n", "sequences must be at least 1, got 0"),
        (PAIR + "compile = true\n", r"compile = true needs a CUDA device, got 'cpu' \(leave compile out"),
        (GGUF + 'tokenizer = "t"\n', "'llamacpp' takes no tokenizer, got 't'.*of vllm, sglang, llama-server"),
        (SERVED + 'device = "cuda"\n', "'vllm' takes no device, got 'cuda'.*option of hf, llamacpp"),
        (SERVED + "exact = true\n", "'vllm' takes no exact, got True"),
        (
            SERVED.replace("vllm", "llama-server") + 'dtype = "float16"\n',
            "'llama-server' takes no dtype, .* vllm, sglang",
        ),
        (GGUF + "context_length = 0\n", r"\[target\]: context_length must be at least 1, got 0"),
        (SERVED + "context_length = 0\n", "context_length must be at least 1, got 0"),
        (GGUF + "threads = 0\n", "threads must be at least 1, got 0"),
        (GGUF + "threads_batch = -1\n", "threads_batch must be at least 1, got -1"),
        (GGUF + "gpu_layers = -1\n", "gpu_layers must be at least 0, got -1"),
        (GGUF + 'flash_attention = "on"\n', "flash_attention must be true or false, got 'on'"),
        (GGUF + "exact = 1\n", "exact must be true or false, got 1"),
        (SERVED + "timeout_s = 0\n", "timeout_s must be above 0, got 0"),
        (SERVED + "timeout_s = nan\n", "timeout_s must be above 0, got nan"),
        (PAIR + '[prm]\npath = "c"\nexact = true\n', r"exact is for draft and target, got True in \[prm\]"),
        (PAIR + '[routers.c]\npath = "c"\nexact = false\n', r"exact is for draft .*, got False in \[routers\.c\]"),
        (PAIR + 'engine = "vlm"\n', "engine must be one of hf, llamacpp, vllm, sglang, llama-server, got 'vlm'"),
        (PAIR + '[routers]\npath = "c"\n', r"routers\.path must be a table, got 'c'"),
        (PAIR + '[routers.""]\npath = "c"\n', r"a further router needs a name.*write \[routers\.NAME\]"),
        (PAIR + '[routers.second]\npth = "c"\n', r"\[routers\.second\].*'pth'"),
    ],
)
def test_a_bad_configuration_names_its_fault(tmp_path, text, message):
    (tmp_path / "pair.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_pair(tmp_path / "pair.toml")


def test_problems_are_read_with_their_ids_and_answers(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text('{"question": "1+1?", "answer": 2}\n\n{"question": "2+2?", "id": "b"}\n')
    first, second = read_file(path)
    assert (first.id, first.answer) == ("1", "2")
    assert (second.id, second.answer) == ("b", None)
    assert read_file(path, limit=1) == [first]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "empty"),
        (["{"], ":1: not a problem"),
        (["[1]"], "not a problem"),
        ([json.dumps({"q": "?"})], "question"),
        ([json.dumps({"question": "?", "id": 1})] * 2, "twice"),
    ],
)
def test_a_bad_dataset_names_the_line(tmp_path, lines, message):
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=message):
        read_file(path)


def test_tiny_problems_are_balanced_and_reproducible():
    found = problems("tiny:test", 30)
    assert found == problems("tiny:test", 30)
    assert len({problem.id for problem in found}) == 30
    assert {problem.metadata["family"] for problem in found} == {"quantities", "equations", "rates"}
    assert {problem.metadata["level"] for problem in found} == set("12345")


def test_fixed_policies_have_one_row_and_others_one_a_threshold():
    assert list(map(str, methods(["target", "rsd"], [0.1, 0.9]))) == ["target", "rsd@0.1", "rsd@0.9"]
    assert list(map(str, methods(["rsd"]))) == ["rsd"]
    assert list(map(str, methods(["rsd@0.7", "target"], [0.1]))) == ["rsd@0.7", "target"]
    with pytest.raises(ConfigError, match=r"threshold must be a number in \[0, 1\], got 'x'"):
        methods(["rsd@x"])


def test_every_public_name_exists():
    assert all(hasattr(arb, name) for name in arb.__all__)
    assert list(arb.__all__) == sorted(arb.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('default_method = "telepathy"\n' + PAIR, "default_method: unknown policy 'telepathy'"),
        ('default_method = "router+speculative"\n' + PAIR, r"'router\+speculative' needs a router .*\[router\]"),
        ('default_method = "router:b@0.1"\n' + PAIR, r"'router:b@0.1' needs a router .*\[routers\.b\]"),
        (PAIR + '[routers."a+b"]\npath = "c"\n', r"must hold no \+, @ or comma, got 'a\+b'"),
        (PAIR + '[routers."a,b"]\npath = "c"\n', r"must hold no \+, @ or comma, got 'a,b'"),
        (PAIR + '[routers."a@1"]\npath = "c"\n', r"must hold no \+, @ or comma, got 'a@1'"),
    ],
)
def test_a_name_that_no_method_can_have_is_refused(tmp_path, text, message):
    (tmp_path / "pair.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_pair(tmp_path / "pair.toml")
