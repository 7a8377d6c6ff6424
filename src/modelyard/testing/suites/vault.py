"""Vaults: the suite that every driver passes, and one in memory."""

from __future__ import annotations

import pytest

from ...core.errors import Unavailable
from ...ports.vault import Vault


class VaultSuite:
    """Subclass it with the fixtures `vault` and `other`: two vaults with different master keys."""

    @pytest.fixture
    def vault(self) -> Vault:
        raise NotImplementedError

    @pytest.fixture
    def other(self) -> Vault:
        raise NotImplementedError

    @pytest.mark.parametrize("plain", [b"", b"secret", bytes(range(256)) * 100], ids=["nothing", "text", "bytes"])
    def test_what_was_sealed_opens_in_its_place(self, vault: Vault, plain: bytes) -> None:
        assert vault.open(vault.seal(plain, "default/key/1"), "default/key/1") == plain

    def test_a_secret_does_not_show_in_what_is_stored(self, vault: Vault) -> None:
        assert b"canary-1907" not in vault.seal(b"canary-1907", "a/b/1")

    def test_a_sealed_value_opens_nowhere_else(self, vault: Vault) -> None:
        sealed = vault.seal(b"secret", "default/key/1")
        for place in ("default/key/2", "other/key/1", "default/key/1 ", ""):
            with pytest.raises(Unavailable):
                vault.open(sealed, place)

    def test_an_altered_value_does_not_open(self, vault: Vault) -> None:
        sealed = vault.seal(b"secret", "a/b/1")
        for index in (0, len(sealed) // 2, len(sealed) - 1):
            altered = bytearray(sealed)
            altered[index] ^= 1
            with pytest.raises(Unavailable):
                vault.open(bytes(altered), "a/b/1")
        with pytest.raises(Unavailable):
            vault.open(sealed[:-1], "a/b/1")
        with pytest.raises(Unavailable):
            vault.open(b"", "a/b/1")

    def test_another_master_key_opens_nothing(self, vault: Vault, other: Vault) -> None:
        with pytest.raises(Unavailable):
            other.open(vault.seal(b"secret", "a/b/1"), "a/b/1")

    def test_equal_secrets_do_not_look_equal(self, vault: Vault) -> None:
        assert vault.seal(b"secret", "a/b/1") != vault.seal(b"secret", "a/b/1")

    def test_a_digest_tells_tokens_apart_and_belongs_to_its_vault(self, vault: Vault, other: Vault) -> None:
        assert vault.digest("token") == vault.digest("token") != vault.digest("tokem")
        assert vault.digest("token") != other.digest("token") and "token" not in vault.digest("token")
        assert vault.digest("\udcff") != vault.digest(""), "any text that Python can hold"
