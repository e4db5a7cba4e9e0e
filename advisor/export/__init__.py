"""What to run: a script, or a trainer's own configuration file."""

from __future__ import annotations

from typing import Literal, get_args

Target = Literal[
    "auto",
    "python",
    "trl",
    "axolotl",
    "llamafactory",
    "unsloth",
    "torchtune",
    "ms-swift",
    "accelerate",
    "skypilot",
    "slurm",
]
TARGETS: tuple[Target, ...] = get_args(Target)
"""What a file can be written for; auto: the trainer that the answer assumes."""
STARTERS: tuple[Target, ...] = ("accelerate", "skypilot", "slurm")
"""Those that start the file of the trainer that the answer assumes."""
