"""Tells on stdout what watchdog says of a directory: `there PATH` or `gone PATH`, in its order."""
import os
import sys

from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer

ROOT = os.path.realpath(sys.argv[1])


def tell(word, path):
    print(word, os.path.relpath(path, ROOT), flush=True)


class Handler(FileSystemEventHandler):
    def on_created(self, event):
        tell("there", event.src_path)

    def on_deleted(self, event):
        tell("gone", event.src_path)

    def on_moved(self, event):
        tell("gone", event.src_path)
        tell("there", event.dest_path)

    def on_modified(self, event):
        if not event.is_directory:
            tell("there", event.src_path)


observer = Observer()
observer.schedule(Handler(), ROOT, recursive=True)
observer.start()
tell("ready", ROOT)
observer.join()
