"""How callers speak to the hub: one module for each protocol. A face parses and writes; it decides nothing."""
