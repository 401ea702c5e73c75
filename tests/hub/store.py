"""What the loopback Hub keeps: repositories with their commits on disk."""

import base64
import fnmatch
import hashlib
import json
import math
import os
import re
import secrets
import struct
import tempfile
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from tests.hub.cards import as_list, front_matter, validate_card

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
LFS_SUFFIXES = (
    "7z arrow bin bz2 ckpt ftz gguf gz h5 joblib model msgpack npy npz onnx ot parquet pb pickle pkl pt "
    "pth rar safetensors tar tflite tgz wasm xz zip zst mp3 mp4 wav flac"
).split()
REGULAR_LIMIT = 10 * 2**20  # the Hub refuses larger files outside LFS


class HubError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **headers: str):
        super().__init__(message)
        self.status, self.message = status, message
        text = message.replace("\n", " ").encode("ascii", "replace").decode()
        self.headers = {"X-Error-Message": text, **({"X-Error-Code": code} if code else {}), **headers}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def write_atomic(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, tmp = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(handle, "wb") as f:
        f.write(data)
    os.replace(tmp, path)


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def clean_path(path: str) -> str:
    parts = path.rstrip("/").split("/")
    if "\\" in path or "\0" in path or any(p in ("", ".", "..", ".git") for p in parts):
        raise HubError(400, f"Invalid path in repo: {path!r}")
    return "/".join(parts)


class Repo:
    """One repository on disk: each commit is a JSON file with its whole tree, contents lie under objects/."""

    def __init__(self, path: Path):
        self.path = path
        self.state = json.loads((path / "repo.json").read_text()) if (path / "repo.json").exists() else {}

    def save(self) -> None:
        write_atomic(self.path / "repo.json", json.dumps(self.state, indent=1).encode())

    def commit(self, sha: str) -> dict:
        return json.loads((self.path / "commits" / f"{sha}.json").read_text())

    def history(self, sha: str | None):
        while sha:
            yield (commit := self.commit(sha))
            sha = commit["parent"]

    def object(self, sha256: str) -> Path:
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise HubError(400, f"Invalid sha256 {sha256!r}")
        return self.path / "objects" / sha256

    def text(self, tree: dict, path: str) -> str:
        return self.object(tree[path]["sha256"]).read_text(errors="replace") if path in tree else ""

    def resolve(self, revision: str) -> str:
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if ref in self.state["refs"]:
                return self.state["refs"][ref]
        if re.fullmatch("[0-9a-f]{7,40}", revision):
            found = list((self.path / "commits").glob(f"{revision}*.json"))
            if len(found) == 1:
                return found[0].stem
        raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def write_commit(self, ref: str, parent: str | None, tree: dict, title: str, message: str, user: str) -> str:
        commit = dict(
            parent=parent, tree=tree, title=title, message=message, author=user, date=now(), nonce=secrets.token_hex(8)
        )
        sha = hashlib.sha1(json.dumps(commit, sort_keys=True).encode()).hexdigest()
        write_atomic(self.path / "commits" / f"{sha}.json", json.dumps({"id": sha, **commit}).encode())
        self.state["refs"][ref] = sha  # the commit becomes visible here, after its contents are on disk
        self.save()
        return sha

    def entry(self, data: bytes | None = None, lfs_oid: str = "") -> dict:
        """The tree entry of a regular file (its contents given) or of an LFS file (uploaded before)."""
        if data is not None:
            sha256 = hashlib.sha256(data).hexdigest()
            write_atomic(self.object(sha256), data)
            return {"oid": git_oid(data), "size": len(data), "sha256": sha256}
        if not self.object(lfs_oid).exists():
            raise HubError(400, f"LFS pointer pointed to a file that does not exist: {lfs_oid}")
        size = self.object(lfs_oid).stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{lfs_oid}\nsize {size}\n".encode()
        return {
            "oid": git_oid(pointer),
            "size": size,
            "sha256": lfs_oid,
            "lfs": {"oid": lfs_oid, "size": size, "pointerSize": len(pointer)},
        }

    def apply(self, parent: str, ops: list[tuple[str, dict]]) -> dict:
        """The tree after the operations of a commit; raises before anything is visible."""
        tree = self.commit(parent)["tree"]
        for key, value in ops:
            path = clean_path(value["path"])
            if key in ("deletedFile", "deletedFolder"):
                gone = [p for p in tree if p == path or (key == "deletedFolder" and p.startswith(path + "/"))]
                if not gone:
                    raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                tree = {p: e for p, e in tree.items() if p not in gone}
            elif key == "file":
                tree[path] = self.entry(self.content(path, value))
            elif key == "lfsFile":
                tree[path] = self.entry(lfs_oid=value["oid"])
            else:
                raise HubError(400, f"Unknown operation {key!r}")
        if clash := {str(p) for path in tree for p in PurePosixPath(path).parents} & set(tree):
            raise HubError(400, f"Both a file and a folder: {sorted(clash)[0]}")
        return tree

    def content(self, path: str, value: dict) -> bytes:
        """The bytes of a regular file in a commit, if the Hub would take it."""
        data = base64.b64decode(value["content"])
        if len(data) > REGULAR_LIMIT:
            raise HubError(400, f"{path} is larger than 10 MiB: use git-lfs")
        if path == "README.md" and (errors := validate_card(data.decode(), self.state["type"])[0]):
            raise HubError(400, "Invalid metadata in README.md: " + "; ".join(errors))
        return data

    def receive(self, oid: str, size: int, sources) -> None:
        """Make objects/OID of the sources, unless they are not what OID and size say."""
        digest, target = hashlib.sha256(), self.object(oid)
        handle, tmp = tempfile.mkstemp(dir=target.parent)
        with os.fdopen(handle, "wb") as f:
            for source in sources:
                while chunk := source.read(2**20):
                    digest.update(chunk)
                    f.write(chunk)
        if digest.hexdigest() != oid or os.path.getsize(tmp) != size:
            os.unlink(tmp)
            raise HubError(400, f"Uploaded content does not match sha256 {oid} and size {size}")
        os.replace(tmp, target)

    def describe(self, sha: str, path: str, expand: bool) -> dict | None:
        """A file or folder as /tree and /paths-info show it; with expand also the last commit that changed it."""

        def inside(tree):
            return [(p, e["oid"]) for p, e in sorted(tree.items()) if p == path or p.startswith(path + "/")]

        tree, last = self.commit(sha)["tree"], None
        if not (files := inside(tree)):
            return None
        if path in tree:
            item = {
                "type": "file",
                "path": path,
                **{k: v for k, v in tree[path].items() if k in ("size", "oid", "lfs")},
            }
        else:
            item = {"type": "directory", "path": path, "size": 0, "oid": git_oid(json.dumps(files).encode())}
        for commit in self.history(sha if expand else None):
            if inside(commit["tree"]) != files:
                break
            last = {"id": commit["id"], "title": commit["title"], "date": commit["date"]}
        return item | ({"lastCommit": last} if expand else {})

    def is_lfs(self, path: str, size: int, sample: bytes, tree: dict) -> bool:
        patterns = [x.split()[0] for x in self.text(tree, ".gitattributes").splitlines() if "filter=lfs" in x]
        named = any(fnmatch.fnmatch(name, p) for p in patterns for name in (path, path.split("/")[-1]))
        return size > 0 and (named or size > REGULAR_LIMIT or b"\0" in sample)

    def info(self, sha: str, blobs: bool = False) -> dict:
        """What model_info / dataset_info / space_info return, with the tags the Hub derives from card and files."""
        commit, state = self.commit(sha), self.state
        tree, kind, config = commit["tree"], state["type"], {}
        card = front_matter(self.text(tree, "README.md"))[0]
        card = card if isinstance(card, dict) else {}
        if kind == "model" and "config.json" in tree:
            try:
                config = json.loads(self.text(tree, "config.json"))
            except ValueError:
                pass
        suffixes, bases = {PurePosixPath(p).suffix for p in tree}, as_list(card.get("base_model"))
        library = card.get("library_name")  # since August 2024 the Hub no longer infers it from config.json
        relation = card.get("base_model_relation") or (
            "adapter"
            if "adapter_config.json" in tree
            else "merge"
            if len(bases) > 1
            else "quantized"
            if config.get("quantization_config") or ".gguf" in suffixes
            else "finetune"
        )
        tags = [library] if library and kind == "model" else []
        tags += [s for s in ("safetensors", "onnx", "gguf", "parquet") if f".{s}" in suffixes]
        tags += as_list(config.get("model_type")) + as_list(card.get("tags")) + as_list(card.get("language"))
        tags += [f"dataset:{d}" for d in as_list(card.get("datasets"))]
        if isinstance(quant := config.get("quantization_config"), dict):
            bits = quant.get("bits") or (4 if quant.get("load_in_4bit") else 8 if quant.get("load_in_8bit") else None)
            tags += [f"{bits}-bit"] * bool(bits) + as_list(quant.get("quant_method"))
        tags += [t for b in bases for t in (f"base_model:{b}", f"base_model:{relation}:{b}")]
        tags += [f"{k}:{v}" for k in ("license", "size_categories", "task_categories") for v in as_list(card.get(k))]
        out = {
            "_id": state["_id"],
            "id": state["id"],
            "author": state["id"].split("/")[0],
            "sha": sha,
            "tags": list(dict.fromkeys(tags)) + ["region:us"],
            "private": state["private"],
            "gated": state["gated"],
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "createdAt": state["created"],
            "lastModified": commit["date"],
            "cardData": card or None,
            "siblings": [],
            "usedStorage": sum(e["size"] for e in tree.values()),
        }
        for path, e in sorted(tree.items()):
            lfs = {"lfs": {**e["lfs"], "sha256": e["lfs"]["oid"]}} if "lfs" in e else {}
            more = {"size": e["size"], "blobId": e["oid"], **lfs} if blobs else {}
            out["siblings"].append({"rfilename": path, **more})
        if kind == "model":
            kept = {k: config[k] for k in ("architectures", "model_type", "quantization_config") if k in config}
            out |= {
                "modelId": state["id"],
                "pipeline_tag": card.get("pipeline_tag"),
                "library_name": library,
                "config": kept,
                "model-index": card.get("model-index"),
                "safetensors": self.parameters(tree),
            }
        if kind == "space":
            out |= {"sdk": state["sdk"], "runtime": {"stage": "RUNNING", "hardware": {}, "sdk": state["sdk"]}}
        return out

    def parameters(self, tree: dict) -> dict | None:
        counts: dict[str, int] = {}
        for path in (p for p in tree if re.fullmatch(r"model(-\d+-of-\d+)?\.safetensors", p)):
            with open(self.object(tree[path]["sha256"]), "rb") as f:
                try:
                    header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
                except (ValueError, struct.error):
                    return None
            for tensor in (t for name, t in header.items() if name != "__metadata__"):
                counts[tensor["dtype"]] = counts.get(tensor["dtype"], 0) + math.prod(tensor["shape"])
        return {"parameters": counts, "total": sum(counts.values())} if counts else None
