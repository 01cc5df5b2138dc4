"""How a goal becomes a plan, a plan a run, and how a run survives anything."""
