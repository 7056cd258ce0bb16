"""Adapters: one external system a file, opened on first use, picklable without connections and secrets."""
