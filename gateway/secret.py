"""A secret that cannot be formatted into a log, a traceback or a pickle."""

from __future__ import annotations

from typing import Final, NoReturn


class Secret:
    """Holds bytes that must go to one place only. `reveal()` is the only way out, so it can be searched for."""

    __slots__ = ("__value",)

    def __init__(self, value: bytes | str) -> None:
        self.__value: Final = value.encode() if isinstance(value, str) else value

    def reveal(self) -> bytes:
        """The bytes, for the header or the cipher that needs them. Never keep the result in a named local."""
        return self.__value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return NotImplemented

    __hash__ = object.__hash__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")
