"""Sets without a member in common that can be united."""

from __future__ import annotations


class DisjointSets:
    """Sets of numbers from 0 that can be united, with the least number of each set as its root."""

    def __init__(self, count: int) -> None:
        """Begin with each number in a set of its own."""
        self._parent = list(range(count))

    def root(self, i: int) -> int:
        """Return the number that stands for the set of `i`."""
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def unite(self, i: int, j: int) -> None:
        """Make one set of those of `i` and `j`."""
        low, high = sorted((self.root(i), self.root(j)))
        self._parent[high] = low

    def members(self) -> list[list[int]]:
        """Return the sets, each in order, in the order of their least numbers."""
        found: dict[int, list[int]] = {}
        for i in range(len(self._parent)):
            found.setdefault(self.root(i), []).append(i)
        return list(found.values())
