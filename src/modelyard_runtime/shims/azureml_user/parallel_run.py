"""`EntryScript`, through which an entry script of a parallel step logs and finds its folders."""

import logging
import os


class EntryScript:
    """`logger` writes to the job's log. What is left in `output_dir` and `log_dir` becomes artifacts of the run."""

    def __init__(self):
        self.logger = logging.getLogger("entry_script")
        if not self.logger.handlers:
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            self.logger.addHandler(handler)
            self.logger.setLevel(logging.INFO)

    @property
    def working_dir(self):
        return os.getcwd()

    @property
    def output_dir(self):
        return _folder("outputs")

    @property
    def log_dir(self):
        return _folder("logs")


def _folder(name):
    path = os.path.join(os.getcwd(), name)
    os.makedirs(path, exist_ok=True)
    return path
