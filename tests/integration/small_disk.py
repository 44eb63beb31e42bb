"""A file system in memory that can be filled up. It hangs in no folder: it is reached through this
process, and is gone with it. Making one needs root."""
import ctypes
import os

FSOPEN, FSCONFIG, FSMOUNT = 430, 431, 432   # the same on every architecture
SET_STRING, CREATE = 1, 6
libc = ctypes.CDLL(None, use_errno=True)


def call(*arguments):
    result = libc.syscall(*arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


class SmallDisk:
    """Raises OSError where it may not be made. Without a size it is of a kind that cannot reserve space."""

    def __init__(self, size=None):
        context = call(FSOPEN, b"tmpfs" if size else b"ramfs", 0)
        try:
            if size:
                call(FSCONFIG, context, SET_STRING, b"size", str(size).encode(), 0)
            call(FSCONFIG, context, CREATE, None, None, 0)
            self.root = call(FSMOUNT, context, 0, 0)
        finally:
            os.close(context)
        os.set_inheritable(self.root, False)
        self.path = f"/proc/{os.getpid()}/fd/{self.root}"

    def fill(self):
        """To the last byte."""
        step = 1 << 20
        with open(os.path.join(self.path, "filler"), "ab", buffering=0) as f:
            while step > 0:
                try:
                    f.write(b"x" * step)
                except OSError:
                    step //= 2

    def make_room(self):
        os.remove(os.path.join(self.path, "filler"))

    def close(self):
        os.close(self.root)
