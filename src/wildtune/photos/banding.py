"""Pairs of 64-bit hashes that differ in few bits, without comparing each with each.

Locality-sensitive hashing as Indyk and Motwani (1998) describe it for bits: each of several tables files every
hash under some of its bits, and only hashes in one drawer are compared. A query also looks into the drawers that
its own least certain bits lead to (multi-probe, Lv and others 2007).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

_PROBED_BITS = 3
_BLOCK = 16384  # queries at a time: with `most_in_drawer` it bounds the memory
_IN_A_DRAWER = 4
_FEW_PHOTOS = 65536


@dataclass(frozen=True)
class Search:
    """How thorough the search is.

    tables        tables, each with its own choice of bits
    key_bits      the lowest bits that keys are chosen from, at most 64
    max_distance  bits in which a hash may differ from the query, among up to 65,536 photos
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

    The keys get a bit more whenever N doubles, so that a drawer holds about as many hashes whatever N is, and
    `max_distance` one less whenever N grows fourfold, so that chance brings no more pairs for each photo. Where more
    than `most_in_drawer` hashes share a drawer, such as those of night photos that are nearly black, each query is
    compared with those of the first photos only, and looks into no other drawer of that table: copies are then still
    linked through these, and other pairs of that drawer are missed.
    """
    count = len(queries)
    if count < 2:
        return np.zeros((0, 2), np.int64)
    bits = int(np.clip(round(np.log2(index.size / _IN_A_DRAWER)), 10, 24))
    best = _Pairs(count, search.most_each)
    tighter = max(0, round(np.log2(count / _FEW_PHOTOS) / 2))
    search = replace(search, max_distance=search.max_distance - tighter)
    random = np.random.default_rng(0)
    for _ in range(search.tables):
        table = _Table(index, np.sort(random.permutation(search.key_bits)[:bits]))
        for mask in turned:
            _look_up(queries ^ np.uint64(mask), weak, table, search, best)
    return best.pairs()


class _Table:
    """Every hash of an index, filed under some of its bits."""

    def __init__(self, index: np.ndarray, bits: np.ndarray) -> None:
        hashes = index.reshape(-1)
        self._lookup = np.zeros((4, 2**16), np.uint32)  # the part of the key that each 16 bits of a hash make up
        for place, bit in enumerate(bits):
            values = np.arange(2**16) >> (int(bit) % 16) & 1
            self._lookup[int(bit) // 16] |= (values << place).astype(np.uint32)
        keys = self.keys(hashes)
        self.starts = np.zeros(2 ** len(bits) + 1, np.int64)
        np.cumsum(np.bincount(keys, minlength=2 ** len(bits)), out=self.starts[1:])
        filed = keys.astype(np.uint64)
        del keys
        filed <<= np.uint64(32)
        filed |= np.arange(len(filed), dtype=np.uint64)
        filed.sort()
        filed &= np.uint64(2**32 - 1)
        # In the order of the drawers, so that looking one through reads memory from end to end.
        self.hashes = hashes[filed]
        filed //= np.uint64(index.shape[1])
        self.photos = filed.astype(np.uint32)

    def keys(self, hashes: np.ndarray) -> np.ndarray:
        """Return the bits of each hash that this table files it under, uint32 (N,)."""
        parts = np.ascontiguousarray(hashes, dtype="<u8").view("<u2").reshape(-1, 4)
        found = np.zeros(len(parts), np.uint32)
        for k, lookup in enumerate(self._lookup):
            if lookup.any():
                found |= lookup[parts[:, k]]
        return found


class _Pairs:
    """Pairs of photos and their distances, of which only each photo's nearest are kept."""

    def __init__(self, count: int, most_each: int) -> None:
        self._count, self._most_each = count, most_each
        self._limit = max(4 * count, 2_000_000)
        self._waiting: list[np.ndarray] = []
        self._size = 0

    def add(self, first: np.ndarray, second: np.ndarray, distance: np.ndarray) -> None:
        low, high = np.minimum(first, second), np.maximum(first, second)
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
            busy = np.bincount(photo, minlength=self._count) > self._most_each
            keep |= ~busy[photo]
            rows = np.flatnonzero(busy[photo])  # few, so that only these are sorted once more
            rows = rows[np.lexsort((distance[rows], photo[rows]))]
            new = np.ones(len(rows), bool)
            new[1:] = photo[rows][1:] != photo[rows][:-1]
            started = np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))
            keep[rows[np.arange(len(rows)) - started < self._most_each]] = True
        self._waiting = [found[keep]]
        self._size = int(keep.sum())


def _look_up(queries: np.ndarray, weak: np.ndarray, table: _Table, search: Search, best: _Pairs) -> None:
    """Add the photos of the index that are close to each query, uint64 (N,), to the pairs."""
    order = np.argsort(table.keys(queries))  # neighbours look into the same part of the table
    for start in range(0, len(queries), _BLOCK):
        asking = order[start : start + _BLOCK]
        hashes = queries[asking]
        keys, rest = table.keys(hashes), table.keys(weak[asking])
        turns = [np.zeros(len(hashes), np.uint32)]
        for _ in range(_PROBED_BITS):
            bit = rest & (~rest + np.uint32(1))  # the lowest that is set
            rest = rest ^ bit
            turns += [np.where((bit > 0) & ((turn > 0) | (k == 0)), turn | bit, 0) for k, turn in enumerate(turns)]
        crowded = table.starts[keys + 1] - table.starts[keys] > search.most_in_drawer
        for k, turn in enumerate(turns):
            at = keys ^ turn
            begin = table.starts[at]
            length = np.minimum(table.starts[at + 1] - begin, search.most_in_drawer)
            if k:
                length[(turn == 0) | crowded] = 0
            query = np.repeat(np.arange(len(hashes)), length)
            place = np.arange(len(query)) - np.repeat(np.cumsum(length) - length - begin, length)
            distance = np.bitwise_count(table.hashes[place] ^ hashes[query])
            near = np.flatnonzero(distance <= search.max_distance)
            first, second = asking[query[near]], table.photos[place[near]].astype(np.int64)
            other = first != second
            best.add(first[other], second[other], distance[near][other])
