"""What Python imports by itself at the start of a process that has this folder on its path: the processes of a
gateway that `tests.isolation` starts, and no others. Nothing of the product knows of it."""

from tests.isolation import hooked

hooked.install()
