"""The settings of who else sees the audit log's checkpoints: witnesses, and places where they are published."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_REMOTE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")


def _remote(text: str) -> str:
    if text and not _REMOTE.fullmatch(text):
        raise ValueError("must be the name of a remote of that repository, such as origin")
    return text


class AuditWitnessSettings(BaseModel):
    """Who else sees checkpoints: only what others have seen keeps whoever holds the log's key from cutting its end
    off and signing again."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    witness_policy: str = Field(
        default="",
        description="A file that says which witnesses are asked to cosign each checkpoint, and how many must (C2SP"
        " tlog-policy: `witness NAME KEY URL`, `group`, `quorum`). Or a folder of them: `<organization>.policy`"
        " for one log, `_default.policy` for the others, if any. Empty: none are asked.",
    )
    witness_ca: str = Field(
        default="", description="PEM file of authorities behind the witnesses' URLs, besides the public ones."
    )
    witness_late_s: int = Field(
        default=900,
        ge=10,
        le=7 * 86_400,
        description="Seconds without a quorum for a log's newest checkpoint after which `/readyz` of the control"
        " process says so. It goes on saying `ok`, for nothing waits for witnesses.",
    )
    publish_file: str = Field(
        default="", description="A file to which checkpoints are added, one JSON object a line. Empty: none is."
    )
    publish_git: str = Field(
        default="",
        description="A git repository, bare or a clone, in which checkpoints are committed:"
        " `<organization>/checkpoint` on the branch `checkpoints`. Empty: none is.",
    )
    publish_git_remote: Annotated[str, AfterValidator(_remote)] = Field(
        default="", description="A remote of it that the branch is pushed to. Empty: it is not pushed."
    )
    publish_webhook: bool = Field(
        default=False,
        description="Whether each organization's webhook is told its checkpoints (`audit.checkpoint`).",
    )
    publish_every_s: int = Field(
        default=3_600,
        ge=10,
        le=7 * 86_400,
        description="Seconds between two publications of one organization's checkpoint in one place, at least.",
    )


def witness_faults(audit: AuditWitnessSettings, home: Path) -> list[tuple[str, str, str]]:
    """What is wrong with these settings, each as `(key, what is wrong, what to do)`. What the policy says is
    judged where it is read (`gateway.witness_files`)."""
    faults = []
    for key, name in (("audit.witness_policy", audit.witness_policy), ("audit.witness_ca", audit.witness_ca)):
        if name and not (home / name).exists():
            faults.append((key, f"{home / name} is not there", "write it, or leave the setting out"))
    if audit.publish_git_remote and not audit.publish_git:
        faults.append(("audit.publish_git_remote", "has no repository", "name it with audit.publish_git"))
    if audit.publish_git and not (home / audit.publish_git).is_dir():
        wrong = f"{home / audit.publish_git} is no folder"
        faults.append(("audit.publish_git", wrong, "make a repository there: `git init --bare`"))
    if audit.publish_file and not (home / audit.publish_file).parent.is_dir():
        wrong = f"{(home / audit.publish_file).parent} is no folder"
        faults.append(("audit.publish_file", wrong, "make that folder, or name another"))
    return faults
