"""Pairs of 64-bit hashes that differ in few bits, without comparing each with each.

Locality-sensitive hashing as Indyk and Motwani (1998) describe it for bits: each of several tables files every
hash under some of its bits, and only hashes in one drawer are compared. A query also looks into the drawers that
its own least certain bits lead to (multi-probe, Lv and others 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_PROBED_BITS = 3
_BLOCK = 16384  # queries at a time: with `most_in_drawer` it bounds the memory
_IN_A_DRAWER = 4


@dataclass(frozen=True)
class Search:
    """How thorough the search is.

    tables        tables, each with its own choice of bits
    key_bits      the lowest bits that keys are chosen from, at most 64
    max_distance  bits in which a hash may differ from the query
    most_in_drawer  hashes of one drawer that a query is compared with; those of later photos are passed over
    most_each     candidates kept for each photo, the nearest
    """

    tables: int = 6
    key_bits: int = 40
    max_distance: int = 14
    most_in_drawer: int = 64
    most_each: int = 24


def find_close(
    queries: np.ndarray, weak: np.ndarray, index: np.ndarray, turned: tuple[int, ...], search: Search
) -> np.ndarray:
    """Return pairs of photos with close hashes, int64 (P, 2), each once, lower number first, in order.

    queries  uint64 (N,), one hash a photo
    weak     uint64 (N,), the bits of it that are least certain
    index    uint64 (N, W), the hashes under which each photo can be found
    turned   masks: each query is looked up turned by each of them (0: as it is)

    The keys get a bit more whenever N doubles, so that a drawer holds about as many hashes whatever N is. The bits
    of photos are uneven, so the time still grows somewhat faster than N. Where more than `most_in_drawer` hashes
    share a drawer, such as those of night photos that are nearly black, each query is compared with those of the
    first photos only: copies are then still linked through these, and other pairs of that drawer are missed.
    """
    count = len(queries)
    if count < 2:
        return np.zeros((0, 2), np.int64)
    bits = int(np.clip(round(np.log2(index.size / _IN_A_DRAWER)), 10, 24))
    best = _Pairs(count, search.most_each)
    random = np.random.default_rng(0)
    for _ in range(search.tables):
        table = _Table(index, np.sort(random.permutation(search.key_bits)[:bits]))
        for mask in turned:
            _look_up(queries ^ np.uint64(mask), weak, table, search, best)
    return best.pairs()


class _Table:
    """Every hash of an index, filed under some of its bits."""

    def __init__(self, index: np.ndarray, bits: np.ndarray) -> None:
        self.hashes = index.reshape(-1)
        self.width = index.shape[1]
        self._lookup = np.zeros((8, 256), np.uint32)  # each byte's part of the key
        for place, bit in enumerate(bits):
            values = np.arange(256) >> (int(bit) % 8) & 1
            self._lookup[int(bit) // 8] |= (values << place).astype(np.uint32)
        keys = self.keys(self.hashes)
        self.starts = np.zeros(2 ** len(bits) + 1, np.int64)
        np.cumsum(np.bincount(keys, minlength=2 ** len(bits)), out=self.starts[1:])
        filed = keys.astype(np.uint64)
        del keys
        filed <<= np.uint64(32)
        filed |= np.arange(len(filed), dtype=np.uint64)
        filed.sort()
        self.filed = filed.astype(np.uint32)

    def keys(self, hashes: np.ndarray) -> np.ndarray:
        """Return the bits of each hash that this table files it under, uint32 (N,)."""
        octets = np.ascontiguousarray(hashes, dtype="<u8").view(np.uint8).reshape(-1, 8)
        found = np.zeros(len(octets), np.uint32)
        for k in range(8):
            if self._lookup[k].any():
                found |= self._lookup[k][octets[:, k]]
        return found


class _Pairs:
    """Pairs of photos and their distances, of which only each photo's nearest are kept."""

    def __init__(self, count: int, most_each: int) -> None:
        self._count, self._most_each = count, most_each
        self._limit = max(4 * count, 2_000_000)
        self._waiting: list[np.ndarray] = []
        self._size = 0

    def add(self, first: np.ndarray, second: np.ndarray, distance: np.ndarray) -> None:
        low, high = np.minimum(first, second).astype(np.int64), np.maximum(first, second).astype(np.int64)
        # One number for each: the pair, then its distance, so that sorting brings the nearest of a pair first.
        self._waiting.append((low * self._count + high) * 128 + distance)
        self._size += len(low)
        if self._size > self._limit:
            self._thin_out()
            self._limit = max(self._limit, 2 * self._size)

    def pairs(self) -> np.ndarray:
        self._thin_out()
        codes = self._waiting[0] // 128
        return np.stack(np.divmod(codes, self._count), axis=1)

    def _thin_out(self) -> None:
        found = np.unique(np.concatenate([*self._waiting, np.zeros(0, np.int64)]))
        codes, distance = np.divmod(found, 128)
        first = np.ones(len(codes), bool)
        first[1:] = codes[1:] != codes[:-1]
        found, codes, distance = found[first], codes[first], distance[first]
        keep = np.zeros(len(codes), bool)
        for photo in np.divmod(codes, self._count):
            order = np.lexsort((distance, photo))
            new = np.ones(len(order), bool)
            new[1:] = photo[order][1:] != photo[order][:-1]
            started = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
            keep[order[np.arange(len(order)) - started < self._most_each]] = True
        self._waiting = [found[keep]]
        self._size = int(keep.sum())


def _look_up(queries: np.ndarray, weak: np.ndarray, table: _Table, search: Search, best: _Pairs) -> None:
    """Add the photos of the index that are close to each query, uint64 (N,), to the pairs."""
    for start in range(0, len(queries), _BLOCK):
        hashes = queries[start : start + _BLOCK]
        keys, rest = table.keys(hashes), table.keys(weak[start : start + _BLOCK])
        turns = [np.zeros(len(hashes), np.uint32)]
        for _ in range(_PROBED_BITS):
            bit = rest & (~rest + np.uint32(1))  # the lowest that is set
            rest = rest ^ bit
            turns += [np.where((bit > 0) & ((turn > 0) | (k == 0)), turn | bit, 0) for k, turn in enumerate(turns)]
        for k, turn in enumerate(turns):
            at = keys ^ turn
            begin = table.starts[at]
            length = np.minimum(table.starts[at + 1] - begin, search.most_in_drawer)
            if k:
                length[turn == 0] = 0
            query = np.repeat(np.arange(len(hashes)), length)
            place = np.arange(len(query)) - np.repeat(np.cumsum(length) - length - begin, length)
            entry = table.filed[place]
            distance = np.bitwise_count(table.hashes[entry] ^ hashes[query])
            photo = entry // np.uint32(table.width)
            close = (distance <= search.max_distance) & (photo != query + start)
            best.add(query[close] + start, photo[close], distance[close])
