"""How often a property is tried on random values."""

from hypothesis import settings

THOROUGH = "thorough"


def attempts(most: int) -> int:
    """All with `--hypothesis-profile=thorough`, and a quarter of them, at least 3, without."""
    return most if settings.get_current_profile_name() == THOROUGH else max(most // 4, 3)
