"""What an answer says about how the name of its model was read."""

from __future__ import annotations

from collections.abc import Mapping

from advisor.catalog.entries import Match


def remarks(match: Match, kin: Mapping[str, str]) -> tuple[str, ...]:
    """One sentence a thing that was assumed; () where the catalog lists the name as it is.

    `kin`: the entry's known derivatives, and what is known of each.
    """
    name = match.entry.name
    texts = []
    if match.derivative:
        online = "" if match.path else ", or go online once"
        texts.append(
            f"{match.text}: taken as {name}{_known(match, kin)}: its own config.json was not read; its vocabulary and"
            f" size may differ: give a path to it{online}."
        )
    elif match.path:
        texts.append(f"{match.text} is not here: taken as {name} by its name.")
    elif match.bare:
        texts.append(f"{match.text} names no version: taken as {name}, the newest of that size in the catalog.")
    elif match.foreign:
        texts.append(
            f"{match.text}: taken as {name} by its name; its own config.json was not read, its vocabulary may differ."
        )
    elif match.tuned:
        texts.append(f"{match.text} is not listed: taken as {name}, whose sizes such variants share.")
    if match.derived:
        texts.append(f"{match.text}: sizes of {name} by name and kinship; its own config.json was not read.")
    return tuple(texts)


def unread(match: Match) -> str:
    """What is not known of a model that was taken as its base; '' where nothing is open."""
    if not match.derivative:
        return ""
    return f"what {match.text} changes of {match.entry.name} (its own config.json was not read)"


def _known(match: Match, kin: Mapping[str, str]) -> str:
    """What the catalog knows of the derivative, in parentheses; '' of one that it does not list."""
    from advisor.catalog.names import shorter, squashed

    spelled = {squashed(base) for base, _ in shorter(match.base)}
    for label, what in kin.items():
        if spelled & {squashed(base) for base, _ in shorter(label.lower().rpartition("/")[2])}:
            return f" ({what})"
    return ""
