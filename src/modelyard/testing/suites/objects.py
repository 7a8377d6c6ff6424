"""Object stores: the suite that every driver passes, and one in memory."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator

import pytest

from ...core.errors import Conflict, Invalid, NotFound, TooLarge, Unavailable
from ...ports.objects import Blob, ResumableObjectStore, Uploader

CHUNK = 1 << 16
ADA, BOB = Uploader("one", "ada"), Uploader("two", "bob")
LARGE = 3 * 2**20 + 17
"""Bytes; more than a driver reads at once."""


class ObjectStoreSuite:
    """Subclass it with a fixture `store`, and with `damage` where stored bytes can be altered behind the driver's back."""

    @pytest.fixture
    def store(self) -> ResumableObjectStore:
        raise NotImplementedError

    def damage(self, store: ResumableObjectStore, digest: str, at: int = 0) -> None:
        """Alter the stored byte of a blob at an offset, and nothing else that could be noticed."""
        pytest.skip("this store offers no way to alter what it keeps")

    def test_what_was_put_is_read_whole_and_in_part(self, store: ResumableObjectStore) -> None:
        data = bytes(range(256)) * 5000
        blob = store.put_bytes(data)
        assert blob == Blob(hashlib.sha256(data).hexdigest(), len(data)) and store.has(blob.digest)
        assert b"".join(store.open(blob.digest)) == data
        assert b"".join(store.open(blob.digest, 1_000_000, 70_000)) == data[1_000_000:1_070_000]
        assert b"".join(store.open(blob.digest, 1_279_990)) == data[1_279_990:]
        copy = io.BytesIO()
        store.copy_to(blob.digest, copy)
        assert copy.getvalue() == data

    def test_nothing_is_content_too(self, store: ResumableObjectStore) -> None:
        blob = store.put_bytes(b"")
        assert blob.size == 0 and store.has(blob.digest) and b"".join(store.open(blob.digest)) == b""

    def test_equal_content_is_one_blob_however_it_comes(self, store: ResumableObjectStore) -> None:
        blob = store.put_bytes(b"same")
        assert store.put_open(io.BytesIO(b"same")) == blob
        assert asyncio.run(store.put_stream(_chunks(b"sa", b"me"), expect=blob.digest)) == blob
        assert b"".join(store.open(blob.digest)) == b"same"

    def test_an_open_file_is_kept_from_where_it_is_read(self, store: ResumableObjectStore) -> None:
        file = io.BytesIO(b"headbody")
        file.seek(4)
        assert b"".join(store.open(store.put_open(file).digest)) == b"body"

    def test_unknown_content_is_not_found(self, store: ResumableObjectStore) -> None:
        unknown = hashlib.sha256(b"never").hexdigest()
        assert not store.has(unknown) and store.missing([unknown]) == {unknown} and store.partial_size(unknown, ADA) == 0
        with pytest.raises(NotFound):
            b"".join(store.open(unknown))
        with pytest.raises(NotFound):
            store.copy_to(unknown, io.BytesIO())

    def test_a_stream_that_is_not_what_it_announced_leaves_nothing(self, store: ResumableObjectStore) -> None:
        announced = hashlib.sha256(b"announced").hexdigest()
        with pytest.raises(Invalid):
            asyncio.run(store.put_stream(_chunks(b"something else"), expect=announced))
        assert not store.has(announced) and not store.has(hashlib.sha256(b"something else").hexdigest())

    def test_a_stream_over_its_limit_leaves_nothing(self, store: ResumableObjectStore) -> None:
        with pytest.raises(TooLarge):
            asyncio.run(store.put_stream(_chunks(b"12345", b"6"), limit=5))
        assert not store.has(hashlib.sha256(b"123456").hexdigest())
        assert asyncio.run(store.put_stream(_chunks(b"12345"), limit=5)).size == 5

    def test_a_stream_that_breaks_off_leaves_nothing(self, store: ResumableObjectStore) -> None:
        async def broken() -> AsyncIterator[bytes]:
            yield b"half"
            raise ConnectionError

        with pytest.raises(ConnectionError):
            asyncio.run(store.put_stream(broken()))
        assert not store.has(hashlib.sha256(b"half").hexdigest())

    def test_an_upload_goes_on_where_it_stopped(self, store: ResumableObjectStore) -> None:
        data = b"first part, second part"
        digest = hashlib.sha256(data).hexdigest()
        assert asyncio.run(store.append(digest, ADA, 0, _chunks(data[:11]), total=len(data))) is None
        assert store.partial_size(digest, ADA) == 11 == store.partial_bytes("one") and not store.has(digest)
        with pytest.raises(Conflict):
            asyncio.run(store.append(digest, ADA, 5, _chunks(data[5:]), total=len(data)))
        assert asyncio.run(store.append(digest, ADA, 11, _chunks(data[11:]), total=len(data))) == Blob(digest, len(data))
        assert store.partial_size(digest, ADA) == 0 == store.partial_bytes("one") and b"".join(store.open(digest)) == data

    def test_an_upload_that_breaks_off_goes_on_after_what_came(self, store: ResumableObjectStore) -> None:
        digest = hashlib.sha256(b"half and half").hexdigest()

        async def broken() -> AsyncIterator[bytes]:
            yield b"half "
            raise ConnectionError

        with pytest.raises(ConnectionError):
            asyncio.run(store.append(digest, ADA, 0, broken(), total=13))
        came = store.partial_size(digest, ADA)
        assert asyncio.run(store.append(digest, ADA, came, _chunks(b"half and half"[came:]), total=13)) == Blob(digest, 13)

    def test_content_that_is_stored_is_not_given_to_who_knows_its_digest_alone(self, store: ResumableObjectStore) -> None:
        blob = store.put_bytes(b"the content of others")
        assert asyncio.run(store.append(blob.digest, ADA, 0, _chunks(), total=blob.size)) is None
        with pytest.raises(Invalid):
            asyncio.run(store.append(blob.digest, ADA, 0, _chunks(b"x" * blob.size), total=blob.size))
        with pytest.raises(Invalid):
            asyncio.run(store.append(blob.digest, ADA, 0, _chunks(), total=0))
        assert asyncio.run(store.append(blob.digest, ADA, 0, _chunks(b"the content of others"), total=blob.size)) == blob

    def test_strangers_neither_see_nor_spoil_the_part_of_an_upload(self, store: ResumableObjectStore) -> None:
        data = b"first part, second part"
        digest = hashlib.sha256(data).hexdigest()
        assert asyncio.run(store.append(digest, ADA, 0, _chunks(data[:11]), total=len(data))) is None
        for stranger in (BOB, Uploader("one", "bob"), Uploader("two", "ada"), Uploader("..", "../one/ada")):
            assert store.partial_size(digest, stranger) == 0
            assert asyncio.run(store.append(digest, stranger, 0, _chunks(b"spoilt"), total=len(data))) is None
        assert store.partial_size(digest, ADA) == 11 and store.partial_bytes("two") == 12
        assert asyncio.run(store.append(digest, ADA, 11, _chunks(data[11:]), total=len(data))) == Blob(digest, len(data))

    def test_an_upload_of_other_bytes_is_refused_and_can_begin_again(self, store: ResumableObjectStore) -> None:
        digest = hashlib.sha256(b"right").hexdigest()
        with pytest.raises(Invalid):
            asyncio.run(store.append(digest, ADA, 0, _chunks(b"wrong"), total=5))
        assert not store.has(digest)
        assert asyncio.run(store.append(digest, ADA, store.partial_size(digest, ADA), _chunks(b"right"), total=5)) == Blob(digest, 5)

    def test_an_upload_longer_than_it_said_is_refused(self, store: ResumableObjectStore) -> None:
        digest = hashlib.sha256(b"long").hexdigest()
        with pytest.raises(Invalid):
            asyncio.run(store.append(digest, ADA, 0, _chunks(b"longer"), total=4))
        assert not store.has(digest)

    @pytest.mark.parametrize("at", [0, LARGE // 2, LARGE - 1])
    def test_of_damaged_content_nothing_that_is_wrong_is_given(self, store: ResumableObjectStore, at: int) -> None:
        data = bytes(range(251)) * (LARGE // 251 + 1)
        blob = store.put_bytes(data[:LARGE])
        assert store.missing([blob.digest]) == set() == store.damaged()
        self.damage(store, blob.digest, at)
        given = b""
        with pytest.raises(Unavailable) as error:
            for chunk in store.open(blob.digest):
                given += chunk
        assert error.value.code == "damaged_blob" and data.startswith(given) and len(given) <= at
        with pytest.raises(Unavailable):
            b"".join(store.open(blob.digest, max(0, at - 10), 20))
        with pytest.raises(Unavailable):
            store.copy_to(blob.digest, io.BytesIO())
        assert store.missing([blob.digest]) == {blob.digest} == store.damaged()

    def test_damaged_content_is_mended_by_storing_it_again(self, store: ResumableObjectStore) -> None:
        blob = store.put_bytes(b"precious" * 1000)
        self.damage(store, blob.digest)
        with pytest.raises(Unavailable):
            b"".join(store.open(blob.digest))
        assert store.put_bytes(b"precious" * 1000) == blob
        assert b"".join(store.open(blob.digest)) == b"precious" * 1000 and not store.damaged() and not store.missing([blob.digest])


async def _chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
