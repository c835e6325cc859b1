"""The content store: blobs by digest.

A write is a conversation: the first message names the reference that the writing goes by, the answer tells how much of
it is there already (from an earlier attempt, or all of it when another namespace has the blob); then come pieces, and
the commit with the expected digest. While somebody else writes under the reference, it is locked.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Final, Unpack

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from unikeel.containerd import messages
from unikeel.containerd.calling import Caller, Exchange, Options, with_timeout
from unikeel.containerd.records import ContentInfo, Descriptor
from unikeel.containerd.wire import content_pb2
from unikeel.errors import AlreadyExists, BadContent, Unavailable

_SERVICE: Final = "containerd.services.content.v1.Content"
#: How much is sent at a time.
_PIECE: Final = 1 << 20
#: Seconds for writing a blob.
_LONG: Final = 600.0
#: Seconds for which a locked reference is tried again, and the pauses between: the shortest, the longest.
_PATIENCE: Final = 120.0
_PAUSES: Final = (0.02, 0.5)
#: What :meth:`Content.read` takes at most, if nobody says: documents, not layers.
LIMIT: Final = 8 << 20

_Writing = Exchange[content_pb2.WriteContentRequest, content_pb2.WriteContentResponse]


class Content:
    """The blobs of the namespace."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def info(self, digest: str, **options: Unpack[Options]) -> ContentInfo:
        """What is known about a blob. :raise NotFound: it is not there."""
        request = content_pb2.InfoRequest(digest=digest)
        answer = await self._caller.unary(_SERVICE, "Info", request, content_pb2.InfoResponse, options)
        return _info(answer.info)

    async def list(self, filters: Sequence[str] = (), **options: Unpack[Options]) -> list[ContentInfo]:
        """The blobs that one of the filters fits, all without filters."""
        request = content_pb2.ListContentRequest(filters=filters)
        answers = self._caller.stream(_SERVICE, "List", request, content_pb2.ListContentResponse, options)
        return [_info(info) async for answer in answers for info in answer.info]

    async def read(self, blob: Descriptor | str, limit: int = LIMIT, **options: Unpack[Options]) -> bytes:
        """A whole blob, its digest checked.

        :raise NotFound: it is not there. :raise BadContent: it is larger than ``limit``, or not what its digest says.
        """
        digest, size = (blob, 0) if isinstance(blob, str) else (blob.digest, blob.size)
        if size > limit:
            raise BadContent(f"{digest} has {size} bytes; at most {limit} are read")
        request = content_pb2.ReadContentRequest(digest=digest)
        found = bytearray()
        kind = content_pb2.ReadContentResponse
        async with aclosing(self._caller.stream(_SERVICE, "Read", request, kind, options)) as answers:
            async for answer in answers:
                found += answer.data
                if len(found) > limit:
                    raise BadContent(f"{digest} has more than the {limit} bytes that are read at most")
        algorithm, _, expected = digest.partition(":")
        if algorithm == "sha256" and hashlib.sha256(found).hexdigest() != expected:
            raise BadContent(f"containerd's content {digest} is not what its digest says")
        return bytes(found)

    async def copy(self, blob: Descriptor | str, fd: int, limit: int, **options: Unpack[Options]) -> int:
        """Write a whole blob of any size to an open file; its bytes. Its digest is the caller's to check.

        :raise NotFound: it is not there. :raise BadContent: it is larger than ``limit``.
        """
        digest, size = (blob, 0) if isinstance(blob, str) else (blob.digest, blob.size)
        if size > limit:
            raise BadContent(f"{digest} has {size} bytes; at most {limit} are read")
        request, done = content_pb2.ReadContentRequest(digest=digest), 0
        kind, long = content_pb2.ReadContentResponse, with_timeout(options, _LONG)
        async with aclosing(self._caller.stream(_SERVICE, "Read", request, kind, long)) as answers:
            async for answer in answers:
                done += len(answer.data)
                if done > limit:
                    raise BadContent(f"{digest} has more than the {limit} bytes that are read at most")
                os.write(fd, answer.data)
        return done

    async def write(
        self,
        ref: str,
        data: bytes | int,
        digest: str,
        labels: Mapping[str, str] | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Write a blob, unless it is there; with labels, these are set on it in any case.

        :param ref: the reference that the writing goes by; an attempt that broke off is continued under the same one.
        :param data: all of it, or the descriptor of a file that is read with ``pread`` from its beginning.
        :raise FailedPrecondition: the data is not what ``digest`` says. :raise Unavailable: somebody else writes
            under this reference all the time.
        """
        limited = with_timeout(options, _LONG)
        pause, longest = _PAUSES
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                await self._write(ref, data, digest, labels, limited)
            except AlreadyExists:
                if labels:
                    await self.label(digest, labels, **options)
            except Unavailable as error:
                if "locked" not in error.message or time.monotonic() > until:
                    raise
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
                continue
            return

    async def _write(
        self, ref: str, data: bytes | int, digest: str, labels: Mapping[str, str] | None, options: Options
    ) -> None:
        size = len(data) if isinstance(data, bytes) else os.fstat(data).st_size
        kinds = content_pb2.WriteContentRequest, content_pb2.WriteContentResponse
        async with self._caller.exchange(_SERVICE, "Write", *kinds, options) as exchange:
            first = content_pb2.WriteContentRequest(action=content_pb2.STAT, ref=ref, total=size, expected=digest)
            offset = (await _said(exchange, first)).offset
            if offset > size:
                offset = 0
            async for piece in _pieces(data, offset):
                message = content_pb2.WriteContentRequest(action=content_pb2.WRITE, offset=offset, data=piece)
                await _said(exchange, message)
                offset += len(piece)
            last = content_pb2.WriteContentRequest(
                action=content_pb2.COMMIT, total=size, offset=offset, expected=digest, labels=labels
            )
            await _said(exchange, last, last=True)

    async def label(self, digest: str, labels: Mapping[str, str], **options: Unpack[Options]) -> ContentInfo:
        """Set labels of a blob; an empty value removes one; others stay. :raise NotFound: it is not there."""
        request = content_pb2.UpdateRequest(
            info=content_pb2.Info(digest=digest, labels=labels),
            update_mask=FieldMask(paths=[f"labels.{name}" for name in labels]),
        )
        answer = await self._caller.unary(_SERVICE, "Update", request, content_pb2.UpdateResponse, options)
        return _info(answer.info)

    async def delete(self, digest: str, **options: Unpack[Options]) -> None:
        """Delete a blob. :raise NotFound: it is not there."""
        await self._caller.unary(_SERVICE, "Delete", content_pb2.DeleteContentRequest(digest=digest), Empty, options)

    async def abort(self, ref: str, **options: Unpack[Options]) -> None:
        """Drop what was written under a reference. :raise NotFound: nothing was."""
        await self._caller.unary(_SERVICE, "Abort", content_pb2.AbortRequest(ref=ref), Empty, options)


async def _said(
    exchange: _Writing, message: content_pb2.WriteContentRequest, *, last: bool = False
) -> content_pb2.WriteContentResponse:
    """Send one message of a write, and wait for its answer."""
    await exchange.send(message, last=last)
    return await exchange.receive()


async def _pieces(data: bytes | int, offset: int) -> AsyncIterator[bytes]:
    if isinstance(data, bytes):
        for at in range(offset, len(data), _PIECE):
            yield data[at : at + _PIECE]
        return
    while piece := await asyncio.to_thread(_read, data, offset):
        offset += len(piece)
        yield piece


def _read(fd: int, offset: int) -> bytes:
    try:
        return os.pread(fd, _PIECE, offset)
    except OSError as error:
        raise Unavailable(f"cannot read what is to become content: {error.strerror}") from error


def _info(found: content_pb2.Info) -> ContentInfo:
    return ContentInfo(
        found.digest,
        found.size,
        dict(found.labels),
        messages.ns(found.created_at),
        messages.ns(found.updated_at),
    )
