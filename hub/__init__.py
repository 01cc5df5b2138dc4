"""What the hub does for the caller: the verbs, the faces they are reached through, and the supervisor behind them."""
