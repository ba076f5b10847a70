"""The cache of prefixes: a radix tree of stored keys and values by (salt, adapter) and tokens, in bounded memory.

What a chat template puts before every conversation is public and shared by all; anything after it belongs to one salt.
Eviction takes leaves by cost (GreedyDual): what is used often and is dear to compute again stays. A path that a waiting
sequence needs is pinned. With a shelf (disk.py), what is stored is also written there; what was written keeps its place
in the tree when it is evicted, and comes back when it is used. A listener is told which blocks of tokens are where.
"""

import heapq
import itertools
from collections.abc import Callable
from collections.abc import Sequence as Row
from dataclasses import dataclass, field
from typing import Protocol

from tokenworks.protocols.worker.blocks import BLOCK, names
from tokenworks.protocols.worker.kv import Medium
from tokenworks.worker.engines.llama.scheduling.names import Names
from tokenworks.worker.engines.llama.scheduling.sequence import Key, Stored, common

ATTENTION = 16384.0
"""Tokens before a position that double the cost of computing it."""


class Listener(Protocol):
    """Is told what is held; by name, see protocols/worker/blocks.py."""

    def stored(self, medium: Medium, blocks: Row[int], parent: int | None = None) -> None: ...

    def removed(self, medium: Medium, blocks: Row[int]) -> None: ...

    def prompt(self, keys: Row[int], blocks: Row[int]) -> None: ...


class Written(Protocol):
    """A part of a file with keys and values; it may still be on its way there."""

    @property
    def ready(self) -> bool: ...

    @property
    def lost(self) -> bool: ...

    def part(self, begin: int, end: int) -> "Written":
        """Of tokens `begin` to `end`. The file stays until each part was let go."""
        ...

    def read(self) -> Stored | None:
        """None, and it is lost from now on, when it is not what was written."""
        ...

    def let_go(self) -> None: ...


class Shelf(Protocol):
    def write(self, node: "Node", tokens: list[int]) -> Written | None:
        """`tokens`: all from the beginning to the node's end. None when there is no room or too much is on its way."""
        ...


class Node:
    """Tokens on the edge that leads here, and their keys and values. `depth`: tokens before them. `held`: how many
    children have theirs in memory. `blocks`: names of those that end here; the first node after what is public has that
    part's, too."""

    __slots__ = (
        "blocks",
        "children",
        "depth",
        "held",
        "key",
        "parent",
        "pins",
        "rank",
        "stored",
        "tokens",
        "uses",
        "written",
    )

    def __init__(self, key: Key, parent: "Node | None", depth: int, tokens: list[int], stored: Stored | None) -> None:
        self.key = key
        self.parent = parent
        self.depth = depth
        self.tokens = tokens
        self.stored = stored
        """None: only written."""
        self.written: Written | None = None
        self.blocks: list[int] = []
        self.children: dict[int, Node] = {}
        self.held = 0
        self.pins = 0
        self.uses = 1
        self.rank = 0.0


@dataclass(slots=True)
class Match:
    """A path, and how many tokens of it are shared."""

    nodes: list[Node] = field(default_factory=list)
    length: int = 0


class Prefixes:
    def __init__(
        self,
        memory: int,
        public: Row[int] = (),
        listener: Listener | None = None,
        shelf: Shelf | None = None,
        names: Names | None = None,
    ) -> None:
        """`memory`: bytes. `public`: tokens that begin every conversation. `listener` hears what is stored and removed,
        by the `names` of its blocks."""
        self.memory = memory
        self.used = 0
        self.nodes = 0
        self.public = list(public)
        self.listener = listener
        self._names = names or Names()
        self._shelf = shelf
        self._roots: dict[Key, Node] = {}
        self._clock = 0.0
        self._heap: list[tuple[float, int, Node]] = []
        self._count = itertools.count()

    def match(self, key: Key, tokens: list[int]) -> Match:
        """The longest stored prefix."""
        found = Match()
        for root, _, end in self._sections(key, tokens, len(tokens)):
            self._walk(self._root(root), tokens, end, found)
            if found.length < end:
                break
        return found

    def fetch(self, match: Match, length: int) -> list[tuple[int, Stored]]:
        """Keys and values of the first `length` tokens, or of fewer when some are lost: (tokens, what is theirs)."""
        found, left = [], length
        for node in match.nodes:
            if left <= 0:
                break
            stored = node.stored or self._restore(node, match)
            if stored is None:
                break
            size = min(len(node.tokens), left)
            found.append((size, stored if size == len(node.tokens) else stored.part(0, size)))
            left -= size
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
        for root, own, until in self._sections(key, tokens, end):
            node = self._place(self._root(root), tokens, until, found)
            begin = found.length
            if begin < until:
                stored = save(begin, until)
                if not self._make_room(stored.size, found):
                    break
                child = Node(own, node, begin, tokens[begin:until], stored)
                self._attach(child, found, tokens)
                if self._shelf is not None:
                    child.written = self._shelf.write(child, tokens[:until])
        return found

    def adopt(self, key: Key, tokens: list[int], depth: int, written: Written) -> bool:
        """Puts back what an earlier process wrote of these tokens from `depth` on. False when what comes before is not
        there, or all of it is."""
        found = Match()
        adopted = False
        for root, own, until in self._sections(key, tokens, len(tokens)):
            node = self._place(self._root(root), tokens, until, found)
            begin = found.length
            if begin < min(depth, until):
                break
            if begin < until:
                child = Node(own, node, begin, tokens[begin:until], None)
                child.written = written.part(begin - depth, until - depth)
                self._attach(child, found, tokens)
                adopted = True
        return adopted

    def _sections(self, key: Key, tokens: list[int], end: int) -> list[tuple[Key, Key, int]]:
        """What is public, then what is its own: (root, key, tokens until there)."""
        public = min(common(self.public, tokens), end) if self.public else 0
        own = (_own(key, public), key, end)
        return [(("", key[1]), ("", key[1]), public), own] if public else [own]

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
            if child.stored is None and (child.written is None or child.written.lost):
                self._remove(child)
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

    def _place(self, root: Node, tokens: list[int], end: int, found: Match) -> Node:
        """The node that a new one for the tokens after `found` would hang on."""
        node = self._walk(root, tokens, end, found)
        at = found.length
        if found.nodes and (last := found.nodes[-1]).depth + len(last.tokens) > at and last is not node:
            node = found.nodes[-1] = self._split(last, at - last.depth)
        return node

    def _attach(self, child: Node, found: Match, tokens: list[int]) -> None:
        """`tokens`: all from the beginning."""
        parent = child.parent
        assert parent is not None  # noqa: S101 -- only a root has none
        if parent.parent is None:
            self._roots[parent.key] = parent
        parent.children[child.tokens[0]] = child
        if child.stored is not None:
            self.used += child.stored.size
            parent.held += 1
        self.nodes += 1
        found.nodes.append(child)
        found.length = child.depth + len(child.tokens)
        self._use(child)
        if self.listener is not None and _root_of(parent).key[0]:  # what is public is the first part of what follows
            self._name(child, tokens)

    def _name(self, node: Node, tokens: list[int]) -> None:
        assert self.listener is not None and node.parent is not None  # noqa: S101 -- see _attach
        end = (node.depth + len(node.tokens)) // BLOCK * BLOCK
        above: Node | None = node.parent
        while above is not None and not above.blocks:
            above = above.parent
        begin = 0 if above is None else node.depth // BLOCK * BLOCK
        parent = self._names.root(node.key) if above is None else above.blocks[-1]
        node.blocks = names(parent, tokens[begin:end])
        if node.blocks:
            self.listener.stored("ram" if node.stored is not None else "disk", node.blocks, parent)

    def _split(self, node: Node, at: int) -> Node:
        """Makes two of one; gives the upper one. `node` stays the lower one and keeps its children."""
        assert node.parent is not None  # noqa: S101 -- only a root has none
        upper = Node(node.key, node.parent, node.depth, node.tokens[:at], None)
        upper.uses, upper.rank = node.uses, node.rank
        named = (node.depth + at) // BLOCK - (node.depth // BLOCK if node.parent.parent is not None else 0)
        upper.blocks, node.blocks = node.blocks[:named], node.blocks[named:]
        self.nodes += 1
        node.parent.children[node.tokens[0]] = upper
        if (stored := node.stored) is not None:
            upper.stored, node.stored = stored.part(0, at), stored.part(at, len(node.tokens))
            upper.held = 1
            self.used += upper.stored.size + node.stored.size - stored.size
        if (written := node.written) is not None:
            upper.written, node.written = written.part(0, at), written.part(at, len(node.tokens))
            written.let_go()
        node.parent, node.depth, node.tokens = upper, upper.depth + at, node.tokens[at:]
        upper.children[node.tokens[0]] = node
        return upper

    def _use(self, node: Node) -> None:
        node.uses += 1
        worth = 1 + (node.depth + len(node.tokens) / 2) / ATTENTION
        node.rank = self._clock + worth * min(node.uses, 8)
        self._offer(node)

    def _offer(self, node: Node) -> None:
        """Into the heap of what may be evicted; its rank may be old by the time it comes out."""
        if node.pins > 0 or node.held or node.stored is None:
            return
        heapq.heappush(self._heap, (node.rank, next(self._count), node))
        if len(self._heap) > 4 * self.nodes + 1024:
            fresh = {id(node): node for rank, _, node in self._heap if rank == node.rank and node.stored is not None}
            self._heap = [(node.rank, next(self._count), node) for node in fresh.values()]
            heapq.heapify(self._heap)

    def _make_room(self, size: int, match: Match) -> bool:
        """Takes nothing away that `match` goes through."""
        for node in match.nodes:
            node.pins += 1
        fits = self._evict(size)
        for node in match.nodes:
            node.pins -= 1
            self._offer(node)
        return fits

    def _evict(self, size: int) -> bool:
        while self.used + size > self.memory:
            if not self._heap:
                return False
            rank, _, node = heapq.heappop(self._heap)
            if node.stored is None or node.pins > 0 or node.held or rank != node.rank:
                continue
            self._clock = max(self._clock, rank)
            if node.written is not None and node.written.ready and not node.written.lost:
                self._tell(node, now="disk")
                self._drop(node)
            else:
                self._remove(node)
        return True

    def _restore(self, node: Node, match: Match) -> Stored | None:
        """Reads what is only written, and keeps it in memory where there is room."""
        if node.written is None or node.parent is None:  # removed since
            return None
        stored = node.written.read()
        if stored is None:
            self._remove(node)
        elif self._make_room(stored.size, match):
            node.stored = stored
            self.used += stored.size
            node.parent.held += 1
            self._offer(node)
            self._tell(node, now="ram", before="disk")
        return stored

    def _drop(self, node: Node) -> None:
        """From memory; it keeps its place."""
        self._tell(node, before="ram")
        assert node.parent is not None and node.stored is not None  # noqa: S101 -- only a root has neither
        self.used -= node.stored.size
        node.stored = None
        node.parent.held -= 1
        self._offer_parent(node.parent)

    def _remove(self, node: Node) -> None:
        """With all that hangs on it: none of that is in memory."""
        parent = node.parent
        assert parent is not None  # noqa: S101 -- only a root has none
        in_memory = node.stored is not None
        if in_memory:
            self._drop(node)
        del parent.children[node.tokens[0]]
        left = [node]
        while left:
            gone = left.pop()
            left += gone.children.values()
            if gone.stored is not None and gone.parent is not None:
                self.used -= gone.stored.size
                gone.stored = None
            self.nodes -= 1
            if gone is not node or not in_memory:
                self._tell(gone, before="disk")
            if gone.written is not None:
                gone.written.let_go()
                gone.written = None
        self._offer_parent(parent)

    def _offer_parent(self, node: Node) -> None:
        if node.parent is not None:
            self._offer(node)
        elif not node.children and node.key in self._roots:
            del self._roots[node.key]

    def _tell(self, node: Node, *, now: Medium | None = None, before: Medium | None = None) -> None:
        """Where its blocks are, and where they were."""
        if self.listener is None or not node.blocks:
            return
        if now is not None:
            self.listener.stored(now, node.blocks)
        if before is not None:
            self.listener.removed(before, node.blocks)


def _root_of(node: Node) -> Node:
    while node.parent is not None:
        node = node.parent
    return node


def _own(key: Key, public: int) -> Key:
    """The root of what follows `public` shared tokens: another one for each length, as positions differ."""
    return (f"{public}:{key[0]}", key[1])
