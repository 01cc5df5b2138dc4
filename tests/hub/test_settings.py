from pathlib import Path

import pytest

from interhub.hub.errors import SettingsInvalid
from interhub.hub.settings import Server, Settings, load, names, variable


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INTERHUB_DATA_DIR", str(tmp_path / "data"))


def _file(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "interhub.toml"
    file.write_text(text)
    return file


def test_an_argument_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _file(tmp_path, '[server]\nport = 1001\nhost = "127.0.0.9"\nmax_body_bytes = 5000\n')
    monkeypatch.setenv("INTERHUB_SERVER__PORT", "1002")
    monkeypatch.setenv("INTERHUB_SERVER__HOST", "127.0.0.8")

    settings = load(arguments={"server.port": 1003, "server.host": None}, cwd=tmp_path)

    assert (settings.server.port, settings.server.host) == (1003, "127.0.0.8")
    assert settings.server.max_body_bytes == 5000
    assert settings.limits.connection_idle_s == 300.0


def test_the_file_in_the_working_directory_is_read_before_the_one_in_the_data_directory(tmp_path: Path) -> None:
    _file(tmp_path / "data", "[server]\nport = 1001\n")
    assert load(cwd=tmp_path).server.port == 1001
    _file(tmp_path, "[server]\nport = 1002\n")
    assert load(cwd=tmp_path).server.port == 1002
    named = _file(tmp_path / "other", "[server]\nport = 1003\n")
    assert load(config=named, cwd=tmp_path).server.port == 1003


def test_the_environment_can_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERHUB_CONFIG", str(_file(tmp_path / "other", "[server]\nport = 1004\n")))
    assert load(cwd=tmp_path).server.port == 1004


def test_a_named_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"none\.toml does not exist"):
        load(config=tmp_path / "none.toml", cwd=tmp_path)


def test_an_unknown_key_is_refused_with_the_nearest_name_and_the_file(tmp_path: Path) -> None:
    file = _file(tmp_path, "[server]\nprot = 1\n[sever]\nport = 2\n")
    with pytest.raises(SettingsInvalid) as refused:
        load(cwd=tmp_path)
    assert refused.value.problems == (
        f"{file}: server.prot is no setting; did you mean server.port?",
        f"{file}: sever.port is no setting; did you mean server.port?",
    )


def test_an_unknown_variable_is_refused_with_the_nearest_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERHUB_SERVER__PROT", "1")
    with pytest.raises(
        SettingsInvalid, match="INTERHUB_SERVER__PROT is no setting; did you mean INTERHUB_SERVER__PORT"
    ):
        load(cwd=tmp_path)


def test_an_impossible_value_names_where_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _file(tmp_path, '[limits]\ncall_timeout_s = -1\n[server]\nhost = ["a"]\n')
    monkeypatch.setenv("INTERHUB_SERVER__PORT", "many")
    with pytest.raises(SettingsInvalid) as refused:
        load(arguments={"catalogue.mode": "some"}, cwd=tmp_path)
    said = str(refused.value)
    assert f"{file}: limits.call_timeout_s: Input should be greater than 0" in said
    assert f"{file}: server.host: Input should be a valid string" in said
    assert "environment variable INTERHUB_SERVER__PORT: Input should be a valid integer" in said
    assert "catalogue.mode: Input should be 'auto', 'all' or 'search'" in said


def test_a_value_in_the_place_of_a_section_is_refused(tmp_path: Path) -> None:
    file = _file(tmp_path, "server = 7337\n")
    with pytest.raises(SettingsInvalid, match=f"{file}: server: Input should be"):
        load(cwd=tmp_path)


def test_a_file_that_is_not_toml_names_the_line(tmp_path: Path) -> None:
    _file(tmp_path, "[server]\nport == 1\n")
    with pytest.raises(SettingsInvalid, match=r"interhub\.toml is not TOML: .*line 2"):
        load(cwd=tmp_path)


def test_a_list_is_given_as_json_or_between_commas_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERHUB_SERVER__ALLOWED_HOSTS", '["a.example", "b.example"]')
    assert load(cwd=tmp_path).server.allowed_hosts == ("a.example", "b.example")
    monkeypatch.setenv("INTERHUB_SERVER__ALLOWED_HOSTS", "a.example, b.example")
    assert load(cwd=tmp_path).server.allowed_hosts == ("a.example", "b.example")
    monkeypatch.setenv("INTERHUB_SERVER__ALLOWED_HOSTS", '["a.example"')
    with pytest.raises(SettingsInvalid, match="environment"):
        load(cwd=tmp_path)


def test_secrets_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERHUB_AUTH__KEY", "ih_very-secret-very-secret")
    monkeypatch.setenv("INTERHUB_DATABASE_URL", "postgresql://me:hidden@db/hub")
    settings = load(cwd=tmp_path)
    assert "very-secret" not in repr(settings)
    assert "hidden" not in repr(settings)
    assert settings.auth.is_set


def test_settings_built_directly_read_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERHUB_SERVER__PORT", "1002")
    assert Settings(data_dir=tmp_path).server == Server()


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1  # pyright: ignore[reportAttributeAccessIssue]  # the point


def test_every_setting_has_a_description_and_a_variable() -> None:
    described = names()
    assert all(described.values())
    assert described["server.port"].startswith("Port")
    assert variable("server.port") == "INTERHUB_SERVER__PORT"


def test_profiles_are_tables_of_the_users_own_names(tmp_path: Path) -> None:
    _file(
        tmp_path,
        '[catalogue]\ndefault_profile = "code"\nkey_profiles = { local = "code" }\n'
        '[catalogue.profiles.code]\nmode = "all"\nagents = ["git-*"]\n',
    )
    catalogue = load(cwd=tmp_path).catalogue
    assert catalogue.profiles["code"].agents == ("git-*",)
    assert catalogue.key_profiles == {"local": "code"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[catalogue.profiles.code]\nmod = "all"\n', "catalogue.profiles.code.mod: Extra inputs"),
        ('[catalogue.profiles.code]\nmode = "some"\n', "catalogue.profiles.code.mode: Input should be"),
        ('[catalogue.profiles."a b"]\n', "'a b' is no name of a profile"),
        ('[catalogue]\ndefault_profile = "cdoe"\n', "no profile is called 'cdoe'"),
    ],
)
def test_a_profile_that_cannot_be_names_its_place(tmp_path: Path, text: str, words: str) -> None:
    file = _file(tmp_path, text)
    with pytest.raises(SettingsInvalid) as refused:
        load(cwd=tmp_path)
    assert words in str(refused.value)
    assert str(file) in str(refused.value) or "default_profile" in text


def test_models_are_tables_of_the_users_own_names_and_hide_their_keys(tmp_path: Path) -> None:
    file = tmp_path / "interhub.toml"
    file.write_text('[planner]\nmodel = "fast"\n[models.fast]\nmodel = "m"\napi_key = "sk-12345"\noutput = "json"\n')

    settings = load(config=file)

    assert (settings.planner.model, settings.models["fast"].output) == ("fast", "json")
    assert "sk-12345" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[models.fast]\nmodel = "m"\noutput = "xml"\n', "models.fast.output"),
        ('[models.fast]\nmodel = "m"\nbase_url = "localhost"\n', "give an http(s) URL"),
        ('[models.fast]\nmodle = "m"\n', "models.fast.modle"),
        ('[planer]\nmodel = "m"\n', "did you mean planner"),
    ],
)
def test_a_model_that_cannot_be_names_its_place(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "interhub.toml"
    file.write_text(text)
    with pytest.raises(SettingsInvalid) as caught:
        load(config=file)
    assert words in str(caught.value)
