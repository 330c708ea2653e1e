"""The commands with their options, from the typer application."""

from typing import Any

from markdown_tables import code, table
from typer.main import get_command

from gradscope.cli import app


def text() -> str:
    """A section for each command."""
    return "\n".join(_sections(get_command(app), "gradscope"))


def _sections(command: Any, name: str) -> list[str]:
    if hasattr(command, "commands"):
        commands = {inner: below for inner, below in command.commands.items() if not below.hidden}
        return [part for inner, below in commands.items() for part in _sections(below, f"{name} {inner}")]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join([name, *(p.metavar or p.human_readable_name.upper() for p in arguments), "[OPTIONS]"])
    rows = [
        (code(p.metavar or p.name.upper()), "required" if p.required else code(p.default), p.help or "")
        for p in arguments
    ]
    rows += [(code(_written(p)), _default(p), p.help or "") for p in options]
    examples = [line.strip() for line in (command.epilog or "").splitlines() if line.strip().startswith(f"{name} ")]
    shown = "\n".join(["```text", *examples, "```", ""]) if examples else ""
    head = [f"## {code(name)}\n", f"{command.help}\n", f"```text\n{usage}\n```\n"]
    return [*head, table(("argument or option", "default", "is"), rows), shown]


def _written(option: Any) -> str:
    """As it is given: ``--config TEXT``."""
    return option.opts[0] if option.is_flag else f"{option.opts[0]} {option.metavar or option.name.upper()}"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.is_flag:
        return "off"
    return "-" if option.default is None else code(option.default)
