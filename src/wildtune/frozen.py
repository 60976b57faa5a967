"""The base of values that one room hands to the next."""

from __future__ import annotations

import pydantic


class Frozen(pydantic.BaseModel):
    """A checked value that cannot be changed once it is made, and that can be written as JSON and read again."""

    model_config = pydantic.ConfigDict(frozen=True)
