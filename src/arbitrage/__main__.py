"""``python -m arbitrage``: the command line."""

from arbitrage.cli.main import run

if __name__ == "__main__":
    run()
