"""Pushes: what happens in a run, sent to the webhooks that its caller named; at least once, in order, off its path."""
