"""Tools of a chat: checked as far as their form goes, and handed on to the model's template.

How many and how large they may be is the router's to say.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from octavo.errors import InvalidArgument


def tools_json(tools: Sequence[dict[str, Any]] | None) -> str:
    """Return the tools as the JSON array that templates take; empty where there are none."""
    tools = tools or []
    for index, tool in enumerate(tools):
        _check_tool(tool, f"tools[{index}]")
    return msgspec.json.encode(tools).decode() if tools else ""


def check_tool_choice(choice: str | dict[str, Any] | None) -> None:
    """Raise InvalidArgument unless an answer that is text will do.

    With "none", tools go to the template, too: as long as calls are not parsed, all answers are
    text.
    """
    if choice in (None, "none", "auto"):
        return
    if choice == "required" or isinstance(choice, dict):
        raise InvalidArgument(
            "tool_choice asks for a tool call, but parsing tool calls is not offered yet; leave it"
            " out, or send 'none' or 'auto'.",
            field="tool_choice",
        )
    message = f"tool_choice is {choice!r}; it must be 'none' or 'auto'."
    raise InvalidArgument(message, field="tool_choice")


def _check_tool(tool: dict[str, Any], field: str) -> None:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        message = f"{field} must have type 'function' and a function."
        raise InvalidArgument(message, field=field)
    name = function.get("name")
    if not isinstance(name, str) or not name:
        message = f"{field}.function.name is missing; it says what the tool is called."
        raise InvalidArgument(message, field=f"{field}.function.name")
