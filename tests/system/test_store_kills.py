import random
import subprocess
import sys
import time

from arbitrage.runtime.store import GroupLog, read_records

WRITER = """
import sys
from pathlib import Path
from arbitrage.runtime.store import GroupLog
with GroupLog(Path(sys.argv[1]), {}, id_field="id") as log:
    print("open", flush=True)
    for n in range(2000):
        if str(n) not in log.done:
            log.append([{"id": str(n), "step": i, "is_last": i == 4, "pad": "x" * 500} for i in range(5)])
"""


def test_a_writer_killed_at_any_moment_loses_and_doubles_nothing(tmp_path):
    rng, seen = random.Random(0), 0
    for _ in range(6):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.05))
        process.kill()
        process.wait()
        process.stdout.close()
        with GroupLog(tmp_path, {}, id_field="id") as found:
            assert len(found.done) >= seen
            seen = len(found.done)
        rows = [(record["id"], record["step"]) for _, record in read_records(tmp_path / "rows.jsonl")]
        assert rows == [(str(n), i) for n in range(seen) for i in range(5)]
    assert seen > 0
