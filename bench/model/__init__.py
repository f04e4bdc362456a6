"""GPT-2: loaded, run by an engine, with the attention that was asked for."""
