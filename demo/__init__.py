"""The demo: the whole loop on a real cluster, told step by step. For people and for tests; never in the wheel."""
