"""Options, their environment variables, and what is refused."""

from pathlib import Path

import pytest

from tokenworks.control import settings
from tokenworks.control.startup import StartupError


def test_defaults_lie_in_the_data_directory():
    chosen = settings.read(["--data-dir", "/d"], {})
    assert str(chosen.listen) == "unix:/d/run/control.sock"
    assert chosen.cluster_key_file == Path("/d/cluster.key")
    assert (chosen.database, chosen.config, chosen.local_models) == (None, None, ())


def test_every_option_is_a_variable_too_and_the_command_line_wins():
    environment = {
        "TOKENWORKS_CONTROL_LISTEN": "http://127.0.0.1:1",
        "TOKENWORKS_CONTROL_DATA_DIR": "/from-environment",
        "TOKENWORKS_CONTROL_DATABASE": "sqlite:////x.db",
        "TOKENWORKS_CONTROL_CONFIG": "/c.toml",
        "TOKENWORKS_CONTROL_CLUSTER_KEY_FILE": "/k",
        "TOKENWORKS_CONTROL_LOG_LEVEL": "debug",
        "TOKENWORKS_CONTROL_LOCAL_MODEL": "a, b",
    }
    chosen = settings.read(["--data-dir", "/from-line"], environment)
    assert chosen.data_dir == Path("/from-line")
    assert chosen.listen.origin == "http://127.0.0.1:1"
    assert (chosen.database, chosen.config) == ("sqlite:////x.db", Path("/c.toml"))
    assert (chosen.cluster_key_file, chosen.log_level) == (Path("/k"), "debug")
    assert chosen.local_models == ("a", "b")
    assert settings.read(["--local-model", "z", "--local-model", "y"], environment).local_models == ("z", "y")


def test_the_environment_is_not_shown():
    assert "hush" not in repr(settings.read(["--data-dir", "/d"], {"UPSTREAM_KEY": "hush"}))


@pytest.mark.parametrize(
    "arguments, named",
    [
        ([], "--data-dir"),
        (["--data-dir", "/d", "--listen", "nowhere"], "--listen"),
        (["--data-dir", "/d", "--listen", "http://h:1/path"], "--listen"),
        (["--data-dir", "/d", "--listen", "https://h:1"], "--listen"),
        (["--data-dir", "/d", "--log-level", "loud"], "--log-level"),
        (["--data-dir", "/d", "--colour", "red"], "--colour"),
    ],
)
def test_refused(arguments, named):
    with pytest.raises(StartupError, match=named):
        settings.read(arguments, {})
