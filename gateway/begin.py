"""What every process of the gateway does first."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.hardening import keep_memory_private
from gateway.serve import SETTINGS_VARIABLE, configure_logging
from gateway.settings import Settings, load


def begin() -> Settings:
    """Read the settings that the supervisor names, and keep what comes into this memory out of core files."""
    keep_memory_private()
    settings = load(Path(os.environ[SETTINGS_VARIABLE]))
    configure_logging(settings.server.log_level)
    return settings
