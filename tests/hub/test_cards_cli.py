"""`interhub cards`: what can be done with cards and keys while no hub runs."""

import json
from pathlib import Path
from typing import Any

from tests.support.hub_process import cli

CARD: dict[str, Any] = {
    "name": "remote",
    "description": "Does remote things.",
    "version": "1.0.0",
    "supportedInterfaces": [
        {"url": "https://agent.example.com/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    ],
    "capabilities": {},
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["text/plain"],
    "skills": [{"id": "do", "name": "do", "description": "Does it.", "tags": ["do"]}],
}


def test_a_card_is_signed_and_verified_by_hand_and_a_changed_one_is_not(tmp_path: Path) -> None:
    command = cli(tmp_path)
    card, signed = tmp_path / "card.json", tmp_path / "signed.json"
    card.write_text(json.dumps(CARD))
    assert command("cards", "verify", str(card)).out.strip() == "unsigned"
    signed.write_text(command("cards", "sign", str(card)).out)
    good = command("cards", "verify", str(signed), "--json")
    assert (good.code, good.document["state"], good.document["whole"]) == (0, "verified", True)
    signed.write_text(signed.read_text().replace("agent.example.com", "evil.example.com"))
    bad = command("cards", "verify", str(signed))
    assert (bad.code, "bad signature" in bad.out) == (1, True)
    missing = command("cards", "verify", str(tmp_path / "nothing.json"))
    assert (missing.code, "cannot be read" in missing.err) == (1, True)


def test_keys_are_rotated_and_retired_but_not_the_one_that_signs(tmp_path: Path) -> None:
    command = cli(tmp_path)
    (first,) = command("cards", "keys", "--json").document["keys"]
    newer, older = command("cards", "keys", "--rotate", "--json").document["keys"]
    assert (older["id"], older["signs"], newer["signs"]) == (first["id"], False, True)
    refused = command("cards", "keys", "--retire", newer["id"])
    assert (refused.code != 0, "--rotate" in refused.err) == (True, True)
    (left,) = command("cards", "keys", "--retire", older["id"], "--json").document["keys"]
    assert left["id"] == newer["id"]
