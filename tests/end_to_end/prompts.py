"""Thirty-two different prompts, short and long, in several languages."""

from itertools import cycle, islice

_TOPICS = [
    "The capital of France is",
    "Water boils at a temperature of",
    "Once upon a time, in a small village by the sea, there lived",
    "def fibonacci(n):\n    ",
    "The three laws of thermodynamics are",
    "La Révolution française a commencé en",
    "Der schnelle braune Fuchs springt über",
    "In 1969, the first humans landed on the Moon. The mission was called",
    "A recipe for a simple tomato soup: first,",
    "The difference between a list and a tuple in Python is",
    "Photosynthesis is the process by which",
    "Dear Sir or Madam,\n\nI am writing to",
    "SELECT name, COUNT(*) FROM orders",
    "El perro corre por el parque porque",
    "The square root of 144 is",
    "She opened the letter slowly and read:",
]

_CONTEXTS = [
    "",
    "The following is an excerpt from a well-known reference book, written for readers who know"
    " nothing of the subject and would like to learn it step by step, with short sentences and"
    " plain words, and with an example wherever one helps.\n\n",
]

PROMPTS = [
    context + topic
    for context, topic in zip(
        [context for context in _CONTEXTS for _ in _TOPICS], islice(cycle(_TOPICS), 32), strict=True
    )
]
