"""The cache of prefixes: a radix tree of stored keys and values by (salt, adapter) and tokens, in bounded memory.

What a chat template puts before every conversation is public and shared by all; anything after it belongs to one salt.
Eviction takes leaves by cost (GreedyDual): what is used often and is dear to compute again stays. A path that a waiting
sequence needs is pinned.
"""

import heapq
import itertools
from collections.abc import Callable
from collections.abc import Sequence as Row
from dataclasses import dataclass, field

from tokenworks.worker.engines.llama.scheduling.sequence import Key, Stored, common

ATTENTION = 16384.0
"""Tokens before a position that double the cost of computing it."""
Listener = Callable[[str, "Node"], None]


class Node:
    """Tokens on the edge that leads here, and their keys and values. `depth`: tokens before them."""

    __slots__ = ("children", "depth", "key", "parent", "pins", "rank", "stored", "tokens", "uses")

    def __init__(self, key: Key, parent: "Node | None", depth: int, tokens: list[int], stored: Stored | None) -> None:
        self.key = key
        self.parent = parent
        self.depth = depth
        self.tokens = tokens
        self.stored = stored
        self.children: dict[int, Node] = {}
        self.pins = 0
        self.uses = 1
        self.rank = 0.0

    def path(self) -> list[int]:
        """All tokens from the root of its own tree to its end."""
        parts, node = [], self
        while node.parent is not None:
            parts.append(node.tokens)
            node = node.parent
        return [token for part in reversed(parts) for token in part]


@dataclass(slots=True)
class Match:
    """A path, and how many tokens of it are shared."""

    nodes: list[Node] = field(default_factory=list)
    length: int = 0

    def parts(self, length: int) -> list[Stored]:
        """Keys and values of the first `length` tokens."""
        found, left = [], length
        for node in self.nodes:
            if left <= 0 or node.stored is None:
                break
            size = len(node.tokens)
            found.append(node.stored if size <= left else node.stored.part(0, left))
            left -= size
        return found


class Prefixes:
    def __init__(self, memory: int, public: Row[int] = (), listener: Listener | None = None) -> None:
        """`memory`: bytes. `public`: tokens that begin every conversation. `listener` hears of each node that was
        stored or removed."""
        self.memory = memory
        self.used = 0
        self.nodes = 0
        self.public = list(public)
        self._listener = listener
        self._roots: dict[Key, Node] = {}
        self._clock = 0.0
        self._heap: list[tuple[float, int, Node]] = []
        self._count = itertools.count()

    def match(self, key: Key, tokens: list[int]) -> Match:
        """The longest stored prefix."""
        found = Match()
        begin = self._shared(key, tokens)
        if begin:
            self._walk(self._root(("", key[1])), tokens, begin, found)
            if found.length < begin:
                return found
        self._walk(self._root(_own(key, begin)), tokens, len(tokens), found)
        return found

    def pin(self, match: Match) -> None:
        """Its path stays until `unpin`: only leaves are evicted, so its last node holds the rest."""
        if match.nodes:
            match.nodes[-1].pins += 1

    def unpin(self, match: Match) -> None:
        if match.nodes:
            match.nodes[-1].pins -= 1
            self._offer(match.nodes[-1])

    def insert(self, key: Key, tokens: list[int], end: int, save: Callable[[int, int], Stored]) -> Match:
        """Stores what is not there yet of the first `end` tokens, as far as the memory allows. `save(begin, end)` gives
        keys and values."""
        found = Match()
        if not self.memory:
            return found
        begin = self._shared(key, tokens[:end])
        if begin:
            self._extend(self._root(("", key[1])), ("", key[1]), tokens, begin, found, save)
            if found.length < begin:
                return found
        self._extend(self._root(_own(key, begin)), key, tokens, end, found, save)
        return found

    def _shared(self, key: Key, tokens: list[int]) -> int:
        """How many tokens are public."""
        return common(self.public, tokens) if self.public else 0

    def _root(self, key: Key) -> Node:
        root = self._roots.get(key)
        if root is None:
            root = self._roots[key] = Node(key, None, 0, [], None)
        return root

    def _walk(self, root: Node, tokens: list[int], end: int, found: Match) -> Node:
        """Goes down from `root` as far as tokens are equal; `found` grows. Gives the last node shared wholly."""
        node, at = root, found.length
        while at < end:
            child = node.children.get(tokens[at])
            if child is None:
                break
            same = common(child.tokens, tokens[at : at + min(len(child.tokens), end - at)])
            self._use(child)
            found.nodes.append(child)
            at += same
            if same < len(child.tokens):
                break
            node = child
        found.length = at
        return node

    def _extend(
        self, root: Node, key: Key, tokens: list[int], end: int, found: Match, save: Callable[[int, int], Stored]
    ) -> None:
        node = self._walk(root, tokens, end, found)
        at = found.length
        if found.nodes and (last := found.nodes[-1]).depth + len(last.tokens) > at and last is not node:
            node = found.nodes[-1] = self._split(last, at - last.depth)
        if at >= end:
            return
        stored = save(at, end)
        node.pins += 1  # making room must not take away what it will hang on
        fits = self._make_room(stored.size)
        node.pins -= 1
        if not fits:
            self._offer(node)
            return
        self._roots[root.key] = root
        child = Node(key, node, at, tokens[at:end], stored)
        node.children[tokens[at]] = child
        self.used += stored.size
        self.nodes += 1
        found.nodes.append(child)
        found.length = end
        self._use(child)
        self._tell("stored", child)

    def _split(self, node: Node, at: int) -> Node:
        """Makes two of one; gives the upper one. `node` stays the lower one and keeps its children."""
        assert node.parent is not None and node.stored is not None  # noqa: S101 -- only a root has neither
        first = node.stored.part(0, at)
        upper = Node(node.key, node.parent, node.depth, node.tokens[:at], first)
        upper.uses, upper.rank = node.uses, node.rank
        self.nodes += 1
        node.parent.children[node.tokens[0]] = upper
        lower = node.stored.part(at, len(node.tokens))
        self.used += first.size + lower.size - node.stored.size
        node.stored, node.parent, node.depth, node.tokens = lower, upper, node.depth + at, node.tokens[at:]
        upper.children[node.tokens[0]] = node
        return upper

    def _use(self, node: Node) -> None:
        node.uses += 1
        worth = 1 + (node.depth + len(node.tokens) / 2) / ATTENTION
        node.rank = self._clock + worth * min(node.uses, 8)
        self._offer(node)

    def _offer(self, node: Node) -> None:
        """Into the heap of what may be evicted; its rank may be old by the time it comes out."""
        if node.pins > 0 or node.children or node.stored is None:
            return
        heapq.heappush(self._heap, (node.rank, next(self._count), node))
        if len(self._heap) > 4 * self.nodes + 1024:
            fresh = {id(node): node for rank, _, node in self._heap if rank == node.rank and node.stored is not None}
            self._heap = [(node.rank, next(self._count), node) for node in fresh.values()]
            heapq.heapify(self._heap)

    def _make_room(self, size: int) -> bool:
        while self.used + size > self.memory:
            if not self._heap:
                return False
            rank, _, node = heapq.heappop(self._heap)
            if node.stored is None or node.pins > 0 or node.children or rank != node.rank:
                continue
            self._clock = max(self._clock, rank)
            self._remove(node)
        return True

    def _remove(self, node: Node) -> None:
        assert node.parent is not None and node.stored is not None  # noqa: S101 -- only a root has neither
        del node.parent.children[node.tokens[0]]
        self.used -= node.stored.size
        self.nodes -= 1
        self._tell("removed", node)
        node.stored = None
        self._offer_parent(node.parent)

    def _offer_parent(self, node: Node) -> None:
        if node.parent is not None:
            self._offer(node)
        elif not node.children and node.key in self._roots:
            del self._roots[node.key]

    def _tell(self, event: str, node: Node) -> None:
        if self._listener is not None:
            self._listener(event, node)


def _own(key: Key, public: int) -> Key:
    """The root of what follows `public` shared tokens: another one for each length, as positions differ."""
    return (f"{public}:{key[0]}", key[1])
