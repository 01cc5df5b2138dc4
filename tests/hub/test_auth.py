from pathlib import Path

import pytest
from pydantic import SecretStr

from interhub.hub.auth import LOCAL, api_keys, check_bind, is_loopback, key_hash, own_key
from interhub.hub.datadir import DataDir
from interhub.hub.errors import SettingsInvalid, Unauthenticated
from interhub.hub.settings import Auth, Server, Settings

CHOSEN = "ih_" + "c" * 43


def _home(path: Path) -> DataDir:
    home = DataDir(path)
    home.prepare()
    return home


def test_the_key_in_the_data_directory_is_the_local_principal(tmp_path: Path) -> None:
    home = _home(tmp_path)
    keys = api_keys(Settings(data_dir=tmp_path), home)
    principal = keys.principal_of_header(f"Bearer {home.key()}")
    assert principal.key == "default/local"
    assert keys.principal_of_header("", home.key()) == principal
    assert keys.principal_of_header(f"bearer  {home.key()} ") == principal


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic {key}", "{key}", "Bearer {key}x", "Bearer \xff"]
)
def test_anything_but_the_key_is_nobody(tmp_path: Path, header: str) -> None:
    home = _home(tmp_path)
    keys = api_keys(Settings(data_dir=tmp_path), home)
    with pytest.raises(Unauthenticated):
        keys.principal_of_header(header.format(key=home.key()))


def test_nobody_comes_in_without_a_key_when_none_was_made(tmp_path: Path) -> None:
    keys = api_keys(Settings(data_dir=tmp_path), _home(tmp_path))
    with pytest.raises(Unauthenticated):
        keys.principal("")


def test_a_rotated_key_holds_from_the_next_request_on(tmp_path: Path) -> None:
    home = _home(tmp_path)
    old = home.key()
    keys = api_keys(Settings(data_dir=tmp_path), home)
    keys.principal(old)
    home.rotate_key()
    keys.principal(home.key())
    with pytest.raises(Unauthenticated):
        keys.principal(old)


def test_a_key_in_the_settings_takes_the_place_of_the_one_at_home(tmp_path: Path) -> None:
    home = _home(tmp_path)
    settings = Settings(data_dir=tmp_path, auth=Auth(key=SecretStr(CHOSEN)))
    keys = api_keys(settings, home)
    keys.principal(CHOSEN)
    assert own_key(settings, home) == CHOSEN
    with pytest.raises(Unauthenticated):
        keys.principal(home.key())


def test_keys_given_by_their_hashes_are_accepted_besides(tmp_path: Path) -> None:
    home = _home(tmp_path)
    keys = api_keys(Settings(data_dir=tmp_path, auth=Auth(key_hashes=(key_hash(CHOSEN),))), home)
    assert keys.principal(CHOSEN).key == f"default/key-{key_hash(CHOSEN)[:12]}"
    assert keys.principal(home.key()).key == "default/local"
    with pytest.raises(Unauthenticated):
        keys.principal(key_hash(CHOSEN))


def test_a_principal_is_accepted_while_there_is_a_key_of_theirs(tmp_path: Path) -> None:
    home, auth = _home(tmp_path), Auth(key_hashes=(key_hash(CHOSEN),))
    further = api_keys(Settings(data_dir=tmp_path, auth=auth), home).principal(CHOSEN)
    for settings, accepted in (
        (Settings(data_dir=tmp_path, auth=auth), True),
        (Settings(data_dir=tmp_path), False),
        (Settings(data_dir=tmp_path, auth=Auth(key=SecretStr(CHOSEN))), False),
    ):
        keys = api_keys(settings, home)
        assert (keys.accepts(further), keys.accepts(LOCAL)) == (accepted, True)


def test_each_further_key_is_a_subject_of_its_own(tmp_path: Path) -> None:
    other = "ih_" + "d" * 43
    hashes = (key_hash(CHOSEN), key_hash(other))
    keys = api_keys(Settings(data_dir=tmp_path, auth=Auth(key_hashes=hashes)), _home(tmp_path))
    assert len({keys.principal(key).subject for key in (CHOSEN, other)}) == 2


def test_the_hub_s_own_key_is_local_also_where_its_hash_is_listed(tmp_path: Path) -> None:
    auth = Auth(key=SecretStr(CHOSEN), key_hashes=(key_hash(CHOSEN),))
    assert api_keys(Settings(data_dir=tmp_path, auth=auth), _home(tmp_path)).principal(CHOSEN).subject == "local"


def test_a_hash_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        Auth(key_hashes=(CHOSEN,))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]"])
def test_loopback_needs_no_set_up(tmp_path: Path, host: str) -> None:
    assert is_loopback(host)
    check_bind(Settings(data_dir=tmp_path, server=Server(host=host)))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "hub.example.com", ""])
def test_other_addresses_are_refused_until_key_and_names_are_chosen(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        check_bind(Settings(data_dir=tmp_path, server=Server(host=host)))
    assert "INTERHUB_AUTH__KEY" in str(refused.value)
    assert "INTERHUB_SERVER__ALLOWED_HOSTS" in str(refused.value)
    names = Server(host=host, allowed_hosts=("hub.example.com",))
    with pytest.raises(SettingsInvalid, match=r"auth\.key"):
        check_bind(Settings(data_dir=tmp_path, server=names))
    check_bind(Settings(data_dir=tmp_path, server=names, auth=Auth(key=SecretStr(CHOSEN))))
    check_bind(Settings(data_dir=tmp_path, server=names, auth=Auth(key_hashes=(key_hash(CHOSEN),))))
