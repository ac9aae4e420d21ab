"""Tells on stdout what watchfiles says of a directory: `there PATH` or `gone PATH`, in its order.

It tells what happened within some milliseconds as a set, of a replaced file that it was deleted and that it was added: who uses it has
to look. Of a directory that came it tells nothing but that.
"""
import os
import sys

from watchfiles import Change, watch

ROOT = os.path.realpath(sys.argv[1])


def tell(word, path):
    print(word, os.path.relpath(path, ROOT), flush=True)


def tell_there(path):
    tell("there", path)
    if os.path.isdir(path) and not os.path.islink(path):
        for name in os.listdir(path):
            tell_there(os.path.join(path, name))


ready = False
for changes in watch(ROOT, yield_on_timeout=True, rust_timeout=100, debounce=200, step=20, watch_filter=None):
    if not changes and not ready:
        ready = True
        tell("ready", ROOT)
    added = {path for change, path in changes if change != Change.deleted}
    for path in sorted({path for change, path in changes if change == Change.deleted}):
        tell("gone", path)
    for path in sorted(added):
        if os.path.lexists(path):
            tell_there(path)
