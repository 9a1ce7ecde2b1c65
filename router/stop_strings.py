"""Finds stop strings in text that arrives in pieces, and holds back what may become one.

Aho and Corasick, "Efficient string matching" (1975): the depth of the automaton's state is the
length of the longest end of the text that begins a stop string: just what has to be held back.
"""

from collections import deque
from collections.abc import Sequence


class StopStringAutomaton:
    """The stop strings of one request; shared by its outputs.

    Attributes:
        children: state → next character → state; state 0 is the empty prefix.
        fallback: state → the longest proper suffix of its prefix that is a prefix too.
        depth: state → length of its prefix.
        match: state → the longest stop string that its prefix ends with.
    """

    def __init__(self, stop_strings: Sequence[str]) -> None:
        """`stop_strings` are not empty, nor is any of them."""
        self.children: list[dict[str, int]] = [{}]
        self.depth = [0]
        self.match: list[str | None] = [None]
        for stop_string in stop_strings:
            self._insert(stop_string)
        self.fallback = [0] * len(self.children)
        self._link()

    def advance(self, state: int, character: str) -> int:
        children, fallback = self.children, self.fallback
        while state and character not in children[state]:
            state = fallback[state]
        return children[state].get(character, 0)

    def _insert(self, stop_string: str) -> None:
        state = 0
        for character in stop_string:
            following = self.children[state].get(character)
            if following is None:
                following = len(self.children)
                self.children[state][character] = following
                self.children.append({})
                self.depth.append(self.depth[state] + 1)
                self.match.append(None)
            state = following
        self.match[state] = stop_string

    def _link(self) -> None:
        """Set the fallbacks, shorter prefixes first, so that each is final when it is needed."""
        queue = deque(self.children[0].values())
        while queue:
            state = queue.popleft()
            self.match[state] = self.match[state] or self.match[self.fallback[state]]
            for character, child in self.children[state].items():
                self.fallback[child] = self.advance(self.fallback[state], character)
                queue.append(child)


class StopStringMatcher:
    """Watches the text of one output. Where the text is cut into pieces makes no difference.

    The match that ends first wins; of several that end together, the longest.
    """

    def __init__(self, automaton: StopStringAutomaton, *, shows_match: bool = False) -> None:
        """`shows_match`: the stop string is shown too."""
        self.matched: str | None = None
        self._shows_match = shows_match
        self._automaton = automaton
        self._state = 0
        self._held = ""

    def feed(self, text: str) -> str:
        """Return what may be shown now; nothing after a match."""
        if self.matched is not None:
            return ""
        automaton, state = self._automaton, self._state
        pending = self._held + text
        for end, character in enumerate(text, start=len(self._held) + 1):
            state = automaton.advance(state, character)
            matched = automaton.match[state]
            if matched is not None:
                self.matched, self._held = matched, ""
                return pending[: end if self._shows_match else end - len(matched)]
        self._state = state
        boundary = len(pending) - automaton.depth[state]
        self._held = pending[boundary:]
        return pending[:boundary]

    def flush(self) -> str:
        """Return what was held back: nothing comes after it, so it is no stop string."""
        held, self._held, self._state = self._held, "", 0
        return held
