"""``arbitrage serve``: an OpenAI-compatible endpoint on a loaded pair, and a page that names each step's author."""
