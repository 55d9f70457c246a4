"""Commands run in this process, as `densityd` runs them."""

from typer.testing import CliRunner, Result

from densityd.cli import app


def run(*arguments: object, status: int = 0, says: str | None = None) -> Result:
    """Run a command that ends with a status, and says something where it asks."""
    result = CliRunner().invoke(app, [str(part) for part in arguments], input=says)
    assert result.exit_code == status, result.output
    return result
