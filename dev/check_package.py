"""Do the distributions work? ``python dev/check_package.py`` builds wheel and sdist and runs the demo from each.

Each is installed with its extra ``hf`` into an empty environment, where ``arbitrage demo --limit 4`` must succeed from
an empty folder. The sdist reuses the environment of the wheel, with the package itself taken out first.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
NAME: Final = "arbitrage-llm"


def run(*command: str | Path, folder: Path) -> str:
    """Run a command in a folder and return its standard output; end with its output where it fails."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    if constraint := environment.get("PIP_CONSTRAINT"):
        environment["PIP_CONSTRAINT"] = str(ROOT / constraint)
    done = subprocess.run([*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def main() -> None:
    """Build, install, run."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run(sys.executable, "-m", "build", "--outdir", folder / "dist", ROOT, folder=folder)
        (wheel,), (sdist,) = ((*(folder / "dist").glob(pattern),) for pattern in ("*.whl", "*.tar.gz"))
        venv.create(folder / "env", with_pip=True)
        python, arbitrage = folder / "env/bin/python", folder / "env/bin/arbitrage"
        (folder / "empty").mkdir()
        for distribution in (wheel, sdist):
            run(python, "-m", "pip", "install", "--quiet", f"{distribution}[hf]", folder=folder)
            version = run(arbitrage, "--version", folder=folder / "empty").strip()
            shown = run(arbitrage, "demo", "--limit", "4", "--shown", "1", folder=folder / "empty")
            if "router+speculative" not in shown:
                raise SystemExit(f"the demo of {distribution.name} shows no comparison:\n{shown}")
            print(f"{distribution.name}: {version}, the demo runs")
            run(python, "-m", "pip", "uninstall", "--quiet", "--yes", NAME, folder=folder)


if __name__ == "__main__":
    main()
