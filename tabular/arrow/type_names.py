"""Names of Arrow types, which may hold any number of names of a caller."""

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information

_LONGEST = 64
_NAMES = {
    getattr(pa.lib, name): name.removeprefix("Type_").lower()
    for name in dir(pa.lib)
    if name.startswith("Type_")
}


def type_name(kind: pa.DataType) -> str:
    """Return the name of a type, without what is nested in it.

    Arrow's own text of a type has all names below it, which it copies once for each level, and keeps the
    interpreter's lock meanwhile.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return f"extension<{kind.extension_name[:_LONGEST]}>"
    within = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_short = not (
        isinstance(within, pa.BaseExtensionType)
        or pa.types.is_nested(within)
        or pa.types.is_run_end_encoded(within)
        or pa.types.is_dictionary(within)
    )
    return str(kind)[:_LONGEST] if is_short else _NAMES[kind.id]
