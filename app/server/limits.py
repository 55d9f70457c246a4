"""The limit of open files: each connection is one."""

import logging
import resource

_SPARE = 256  # the database, files on their way, parsers, the listening socket

log = logging.getLogger(__name__)


def connections_that_fit(wanted: int) -> int:
    """Raise this process's limit of open files as far as it may; how many connections it allows.

    Args:
        wanted: connections at once; the answer is at most this.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted + _SPARE:
        soft = wanted + _SPARE if hard == unlimited else min(wanted + _SPARE, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == unlimited or soft >= wanted + _SPARE:
        return wanted
    fit = max(1, soft - _SPARE)
    log.warning("the limit of %d open files leaves room for %d connections only", soft, fit)
    return fit
