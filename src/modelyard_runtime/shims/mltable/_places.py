"""Where the files of a table are: local paths, web addresses, and what lies in the yard's own datastores."""

import glob
import json
import os
import re
import tempfile
import urllib.parse
import urllib.request

_DATASTORE = re.compile(r"^(?:azureml|yard)://(?:.*/)?datastores/(?P<store>[^/]+)/paths/(?P<path>.*)$")
_ASSET = re.compile(
    r"^(?:azureml|yard):(?:/.*/data/(?P<long>[^/]+)/versions/(?P<number>[^/]+)|(?P<name>[^/:@]+)(?::(?P<version>[^/:@]+)|@(?P<label>\w+))?)$"
)
_fetched = {}


def is_remote(text):
    return re.match(r"^(https?|azureml|yard|wasbs?|abfss?|adl|s3|gs):", text) is not None


def plain(text):
    return urllib.parse.unquote(text[7:]) if text.startswith("file://") else text


def files(item, base):
    """The files that one entry of `paths` stands for, in order. Raises FileNotFoundError when there is none."""
    kind, text = next(iter(item.items()))
    if kind not in ("file", "folder", "pattern"):
        raise ValueError("an entry of `paths` is a file, a folder or a pattern, not %r" % kind)
    if kind == "pattern" and is_remote(text):
        folder, names = _split_at_star(text)
        pattern = os.path.join(glob.escape(local(folder, base)), names)
    else:
        pattern = local(str(text), base)
    if kind == "pattern":
        matches = glob.glob(pattern, recursive=True)
    elif kind == "folder" or os.path.isdir(pattern):
        matches = glob.glob(os.path.join(glob.escape(pattern), "**"), recursive=True)
    else:
        matches = [pattern]
    matches = sorted(path for path in matches if os.path.isfile(path) and not _hidden(path, pattern))
    if not matches:
        raise FileNotFoundError("%s %s: there is no such file" % (kind, text))
    return matches


def _hidden(path, pattern):
    """MLTable files and markers of writers are not data."""
    name = os.path.basename(path)
    return path != pattern and (name == "MLTable" or name.startswith(("_", ".")))


def _split_at_star(text):
    """(the address of the folder before the first wildcard, the pattern below it)"""
    literal = re.split(r"[*?\[]", text, maxsplit=1)[0]
    folder = literal[: literal.rindex("/") + 1]
    return folder, text[len(folder) :]


def local(text, base):
    """A path of this machine for any form of address; what is elsewhere is fetched once."""
    if not is_remote(text):
        return os.path.normpath(os.path.join(base, plain(text)))
    if text not in _fetched:
        _fetched[text] = _fetch(text)
    return _fetched[text]


def _fetch(text):
    if text.startswith(("http://", "https://")):
        target = os.path.join(tempfile.mkdtemp(prefix="mltable-"), os.path.basename(urllib.parse.urlsplit(text).path) or "data")
        with urllib.request.urlopen(text, timeout=60) as response, open(target, "wb") as file:
            _copy(response, file)
        return target
    match = _DATASTORE.match(text)
    if match:
        return _from_datastore(match.group("store"), match.group("path"))
    match = _ASSET.match(text)
    if match:
        name, version = match.group("long") or match.group("name"), match.group("number") or match.group("version")
        asset = _call(
            "/data/%s/versions/%s" % (name, version) if version else "/data/%s?label=%s" % (name, match.group("label") or "latest")
        )
        return _fetch(asset.get("content") or asset["path"])  # where it is as it was, when others may write to its path
    raise ValueError("%s is not read here: copy the files into a datastore of the yard, or beside the MLTable file" % text)


def _from_datastore(store, path):
    """The file at `path`, or the folder: `sales` is neither `sales_old` nor `sales.csv`."""
    target = tempfile.mkdtemp(prefix="mltable-")
    base = "/datastores/%s/files" % store
    if path and not path.endswith("/"):
        # The file of this very name is the first of all that begin with it.
        if [file["path"] for file in _page(base, path, "", 1)["value"]] == [path]:
            return _copied(base, path, os.path.join(target, os.path.basename(path)))
        path += "/"
    token, count = "", 0
    while True:
        page = _page(base, path, token, 5000)
        for file in page["value"]:
            _copied(base, file["path"], os.path.join(target, file["path"][len(path) :]))
            count += 1
        token = page.get("next")
        if not token:
            break
    if not count:
        raise FileNotFoundError("there is nothing at azureml://datastores/%s/paths/%s" % (store, path))
    return target


def _page(base, prefix, token, limit):
    query = {"prefix": prefix, "limit": str(limit)}
    if token:
        query["token"] = token
    return _call("%s?%s" % (base, urllib.parse.urlencode(query)))


def _copied(base, path, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with _open("%s/%s" % (base, urllib.parse.quote(path))) as response, open(target, "wb") as out:
        _copy(response, out)
    return target


def _copy(source, target):
    while True:
        chunk = source.read(1 << 20)
        if not chunk:
            return
        target.write(chunk)


def _open(path):
    url, token = os.environ.get("YARD_URL"), os.environ.get("YARD_TOKEN") or os.environ.get("MLFLOW_TRACKING_TOKEN")
    if not url or not token:
        raise OSError("an azureml: address is read through the yard: set YARD_URL and YARD_TOKEN (`yard env` prints them)")
    workspace = os.environ.get("YARD_WORKSPACE") or "default"
    request = urllib.request.Request("%s/api/v1/workspaces/%s%s" % (url, workspace, path), headers={"Authorization": "Bearer " + token})
    return urllib.request.urlopen(request, timeout=60)


def _call(path):
    with _open(path) as response:
        return json.load(response)
