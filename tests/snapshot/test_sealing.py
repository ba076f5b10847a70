import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.snapshot.sealing import (
    SealError,
    _derive,
    ensure_cluster_key,
    internal_token,
    read_cluster_key,
    seal,
    unseal,
)

KEY = bytes(range(32))


@given(
    st.binary(min_size=32, max_size=32), st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))
)
def test_a_sealed_credential_opens(key: bytes, upstream: str, secret: str) -> None:
    assert unseal(key, upstream, seal(key, upstream, secret)) == secret


def test_it_opens_nowhere_else() -> None:
    sealed = seal(KEY, "a", "secret")
    assert b"secret" not in sealed
    assert sealed != seal(KEY, "a", "secret")
    for key, upstream, text in [
        (bytes(32), "a", sealed),
        (KEY, "b", sealed),
        (KEY, "a", b""),
        (KEY, "a", b"\x02" + sealed[1:]),
    ]:
        with pytest.raises(SealError, match="same cluster key"):
            unseal(key, upstream, text)


@given(st.integers(0), st.integers(1, 255))
def test_every_flipped_bit_is_noticed(place: int, flip: int) -> None:
    sealed = bytearray(seal(KEY, "a", "secret"))
    sealed[place % len(sealed)] ^= flip
    with pytest.raises(SealError):
        unseal(KEY, "a", bytes(sealed))


def test_derivation_is_the_standard_one() -> None:
    standard = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"purpose").derive(KEY)
    assert _derive(KEY, b"purpose") == standard
    assert internal_token(KEY) != internal_token(bytes(32))
    assert KEY.hex() not in internal_token(KEY)


def test_the_cluster_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"
    keys: list[bytes] = []
    threads = [threading.Thread(target=lambda: keys.append(ensure_cluster_key(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert set(keys) == {read_cluster_key(path)}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["cluster.key"]


def test_a_bad_cluster_key_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"
    with pytest.raises(ValueError, match="cannot read the cluster key"):
        read_cluster_key(path)
    path.write_text("not hex")
    path.chmod(0o600)
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        read_cluster_key(path)
    path.write_text(KEY.hex())
    path.chmod(0o640)
    with pytest.raises(ValueError, match="chmod 600"):
        read_cluster_key(path)
