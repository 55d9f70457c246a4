"""File systems that do not keep a database file safe."""

import re
from pathlib import Path

# Their locks and shared memory do not hold between machines, some not even on one.
_NETWORK = re.compile(r"nfs\d?|cifs|smb\w*|9p|afs|ceph|glusterfs|lustre|fuse\.(sshfs|s3fs|gcsfuse)")
_MOUNTS = Path("/proc/self/mountinfo")


def network_filesystem(path: Path, *, mounts: Path = _MOUNTS) -> str | None:
    """Return the kind of network file system that a path lies on, None if it is a local one.

    Args:
        path: an absolute path.
        mounts: the kernel's list of mounts; where there is none, every path counts as local.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return None
    kinds = {}
    for line in lines:
        fields = line.split()
        # A mount point's spaces are written as octal escapes.
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        kinds[Path(point)] = fields[fields.index("-") + 1]
    for folder in (path, *path.parents):
        if folder in kinds:
            return kinds[folder] if _NETWORK.fullmatch(kinds[folder]) else None
    return None
