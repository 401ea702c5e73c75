"""What the loopback Hub answers: one function an address, found by its pattern."""

import base64
import fnmatch
import hashlib
import json
import math
import re
import secrets
import shutil
from pathlib import Path
from urllib.parse import parse_qs

from tests.hub.cards import as_list, validate_card
from tests.hub.store import (
    KINDS,
    LFS_SUFFIXES,
    HubError,
    Repo,
    clean_path,
    now,
    write_atomic,
)

ROUTES: list[tuple[str, re.Pattern, object]] = []
PARTS = {
    "KIND": "(?P<kind>models|datasets|spaces)",
    "REPO": "(?P<repo>[^/]+/[^/]+)",
    "FILE": "(?P<file>.+)",
    "REV": "(?P<rev>refs/(?:pr|convert)/[^/]+|[^/]+)",
    "OID": "(?P<oid>[0-9a-f]{64})",
    "NUM": r"(?P<num>\d+)",
    "WEB": r"(?P<kind>datasets/|spaces/|)(?P<repo>(?!api/|_|datasets/|spaces/)[^/]+/[^/]+)",
}


def route(method: str, pattern: str):
    regex = re.compile(re.sub("[A-Z]{3,4}", lambda m: PARTS[m[0]], pattern))

    def register(function):
        ROUTES.append((method, regex, function))
        return function

    return register


@route("GET", "/api/whoami-v2")
def whoami(h):
    h.require(write=False)
    orgs = [{"type": "org", "name": o, "fullname": o, "roleInOrg": "admin"} for o in h.namespaces() - {h.user}]
    token = {"displayName": "test", "role": h.role, "createdAt": now()}
    return {
        "type": "user",
        "id": hashlib.md5(h.user.encode()).hexdigest()[:24],
        "name": h.user,
        "fullname": h.user,
        "isPro": False,
        "orgs": orgs,
        "auth": {"type": "access_token", "accessToken": token},
    }


@route("POST", "/api/validate-yaml")
def validate_yaml(h):
    body = h.json()
    errors, warnings = ([{"message": m} for m in x] for x in validate_card(body["content"], body["repoType"]))
    return (400 if errors else 200), {"errors": errors, "warnings": warnings}


@route("POST", "/api/repos/create")
def create_repo(h):
    body = h.json()
    kind, user = (body.get("type") or "model") + "s", body.get("organization") or h.user
    h.require(user)
    repo_id = f"{user}/{body['name']}"
    if not (path := h.hub.repo_path(kind, repo_id)):
        raise HubError(400, f"Invalid repository name: {repo_id}")
    if (path / "repo.json").exists():
        return 409, {"error": f"You already created this repo: {repo_id}", "url": h.hub.web(kind, repo_id)}
    repo = Repo(path)
    repo.state = {
        "_id": secrets.token_hex(12),
        "id": repo_id,
        "type": KINDS[kind],
        "gated": False,
        "created": now(),
        "private": bool(body.get("private")) or body.get("visibility") == "private",
        "sdk": body.get("sdk"),
        "refs": {},
        "discussions": [],
    }
    attributes = "".join(f"*.{s} filter=lfs diff=lfs merge=lfs -text\n" for s in LFS_SUFFIXES).encode()
    repo.write_commit(
        "refs/heads/main", None, {".gitattributes": repo.entry(attributes)}, "initial commit", "", h.user
    )
    return {"url": h.hub.web(kind, repo_id), "name": repo_id, "id": repo.state["_id"]}


@route("DELETE", "/api/repos/delete")
def delete_repo(h):
    body = h.json()
    repo_id = f"{body.get('organization') or h.user}/{body['name']}"
    shutil.rmtree(h.repo((body.get("type") or "model") + "s", repo_id, write=True).path)


@route("PUT", "/api/KIND/REPO/settings")
def settings(h, kind, repo):
    repo, body = h.repo(kind, repo, write=True), h.json()
    body |= {"private": body["visibility"] == "private"} if "visibility" in body else {}
    repo.state |= {k: body[k] for k in ("private", "gated") if k in body}
    repo.save()


@route("GET", "/api/KIND")
def list_repos(h, kind):
    found = []
    for path in sorted((h.hub.root / kind).glob("*/*/repo.json")):
        repo = Repo(path.parent)
        info, owner = repo.info(repo.resolve("main")), repo.state["id"].split("/")[0]
        if (
            (not repo.state["private"] or owner in h.namespaces())
            and h.query.get("search", "") in info["id"]
            and h.query.get("author", owner) == owner
            and set(as_list(h.query.get("filter"))) <= set(info["tags"])
        ):
            found.append(info)
    return found[: int(h.query.get("limit", 1000))]


@route("GET", "/api/KIND/REPO(?:/revision/REV)?")
def repo_info(h, kind, repo, rev):
    repo = h.repo(kind, repo)
    return repo.info(repo.resolve(rev or "main"), h.flag("blobs"))


@route("GET", "/api/KIND/REPO/xet-(?:read|write)-token/REV")
def no_xet(h, kind, repo, rev):
    raise HubError(400, "This test hub has no Xet storage: set HF_HUB_DISABLE_XET=1")


@route("GET", "/api/KIND/REPO/tree/REV(?:/FILE)?")
def list_tree(h, kind, repo, rev, file):
    repo = h.repo(kind, repo, read=True)
    sha, prefix = repo.resolve(rev), f"{file}/" if file else ""
    under = [p[len(prefix) :].split("/") for p in repo.commit(sha)["tree"] if p.startswith(prefix)]
    if file and not under:
        raise HubError(404, f"{file} does not exist on {rev}", "EntryNotFound", **{"X-Repo-Commit": sha})
    paths = sorted(
        {prefix + "/".join(parts[: i + 1]) for parts in under for i in range(len(parts) if h.flag("recursive") else 1)}
    )
    start = int(h.query.get("cursor", 0))
    stop, headers = start + h.hub.page_size, {}
    if stop < len(paths):
        query = "&".join(f"{k}={v}" for k, v in {**h.query, "cursor": stop}.items())
        headers["Link"] = f'<{h.hub.url}{h.url_path}?{query}>; rel="next"'
    return 200, [repo.describe(sha, p, h.flag("expand")) for p in paths[start:stop]], headers


@route("POST", "/api/KIND/REPO/paths-info/REV")
def paths_info(h, kind, repo, rev):
    repo = h.repo(kind, repo, read=True)
    body = h.json() if "json" in h.headers.get("Content-Type", "") else parse_qs(h.body.read().decode())
    expand = str(as_list(body.get("expand", False))[0]).lower() == "true"
    items = [repo.describe(repo.resolve(rev), p.strip("/"), expand) for p in as_list(body.get("paths"))]
    return [item for item in items if item]


@route("GET", "/api/KIND/REPO/refs")
def refs(h, kind, repo):
    out = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
    for ref, sha in h.repo(kind, repo).state["refs"].items():
        group, name = ref.removeprefix("refs/").split("/", 1)
        group = {"heads": "branches", "tags": "tags", "pr": "pullRequests"}[group]
        out[group].append({"name": name, "ref": ref, "targetCommit": sha})
    return out


@route("GET", "/api/KIND/REPO/commits/REV")
def commits(h, kind, repo, rev):
    repo = h.repo(kind, repo)
    return [
        {**{k: c[k] for k in ("id", "title", "message", "date")}, "authors": [{"user": c["author"]}]}
        for c in repo.history(repo.resolve(rev))
    ]


@route("POST", "/api/KIND/REPO/(?P<what>branch|tag)/REV")
def create_ref(h, kind, repo, what, rev):
    repo, body = h.repo(kind, repo, write=True), h.json()
    ref, start = (
        (f"refs/heads/{rev}", body.get("startingPoint", "main"))
        if what == "branch"
        else (f"refs/tags/{body['tag']}", rev)
    )
    if ref in repo.state["refs"]:
        raise HubError(409, f"Reference already exists: {ref}")
    repo.state["refs"][ref] = repo.resolve(start)
    repo.save()


@route("DELETE", "/api/KIND/REPO/(?P<what>branch|tag)/REV")
def delete_ref(h, kind, repo, what, rev):
    repo, ref = h.repo(kind, repo, write=True), f"refs/{'heads' if what == 'branch' else 'tags'}/{rev}"
    if ref == "refs/heads/main":
        raise HubError(403, "Cannot delete the main branch")
    if not repo.state["refs"].pop(ref, None):
        raise HubError(404, f"Reference not found: {ref}", "RevisionNotFound")
    repo.save()


# -- uploads: preupload, LFS (one PUT, or parts when the file is larger than hub.part_size), commit
@route("POST", "/api/KIND/REPO/preupload/REV")
def preupload(h, kind, repo, rev):
    repo, body, out = h.repo(kind, repo, write=not h.flag("create_pr")), h.json(), []
    h.require()
    tree = repo.commit(repo.resolve(rev))["tree"]
    ignored = [p.strip("/") for p in body.get("gitIgnore", "").split() if not p.startswith("#")]
    for f in body["files"]:
        path = clean_path(f["path"])
        old, lfs = tree.get(path), repo.is_lfs(path, f["size"], base64.b64decode(f["sample"]), tree)
        out.append(
            {
                "path": f["path"],
                "uploadMode": "lfs" if lfs else "regular",
                "shouldIgnore": any(fnmatch.fnmatch(x, p) for p in ignored for x in (path, *path.split("/"))),
                "oid": old and (old["sha256"] if "lfs" in old else old["oid"]),
            }
        )
    return {"files": out}


@route("POST", r"/WEB\.git/info/lfs/objects/batch")
def lfs_batch(h, kind, repo):
    kind = kind.strip("/") or "models"
    found, body, out = h.repo(kind, repo), h.json(), []
    h.require()  # also without write access to this repository: pull requests upload here too
    for oid, size in ((item["oid"], item["size"]) for item in body["objects"]):
        answer, base = {"oid": oid, "size": size}, f"/_lfs/{kind}/{repo}/{oid}"
        if not found.object(oid).exists():
            upload = {"href": h.hub.sign(f"{base}?size={size}"), "header": {}}
            if size > h.hub.part_size and "multipart" in body.get("transfers", ()):
                parts = range(1, math.ceil(size / h.hub.part_size) + 1)
                upload["header"] = {
                    "chunk_size": str(h.hub.part_size),
                    **{str(n): h.hub.sign(f"{base}?part={n}") for n in parts},
                }
            answer["actions"] = {"upload": upload, "verify": {"href": f"{h.hub.url}{base}/verify", "header": {}}}
        out.append(answer)
    return {"transfer": "basic", "objects": out}


@route("PUT", "/_lfs/KIND/REPO/OID")
def lfs_put(h, kind, repo, oid):
    repo = h.hub.signed_repo(h.path, kind, repo)
    if "part" not in h.query:
        return repo.receive(oid, int(h.query["size"]), [h.body])
    write_atomic(repo.path / "parts" / f"{oid}.{int(h.query['part'])}", data := h.body.read())
    return 200, None, {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}


@route("POST", "/_lfs/KIND/REPO/OID")
def lfs_complete(h, kind, repo, oid):
    repo, files = h.hub.signed_repo(h.path, kind, repo), []
    for part in sorted(h.json()["parts"], key=lambda p: p["partNumber"]):
        files.append(repo.path / "parts" / f"{oid}.{part['partNumber']}")
        if not files[-1].exists() or part["etag"].strip('"') != hashlib.md5(files[-1].read_bytes()).hexdigest():
            raise HubError(400, f"Part {part['partNumber']} is missing or has another etag")
    repo.receive(oid, int(h.query["size"]), (open(f, "rb") for f in files))
    for file in files:
        file.unlink()


@route("POST", "/_lfs/KIND/REPO/OID/verify")
def lfs_verify(h, kind, repo, oid):
    body, target = h.json(), Repo(h.hub.repo_path(kind, repo)).object(oid)
    if body["oid"] != oid or not target.exists() or target.stat().st_size != body["size"]:
        raise HubError(404, f"LFS object {oid} was not uploaded whole")


@route("POST", "/api/KIND/REPO/commit/REV")
def commit(h, kind, repo, rev):
    pull = h.flag("create_pr")
    repo = h.repo(kind, repo, write=not pull and not rev.startswith("refs/pr/"))
    h.require()
    lines = [json.loads(line) for line in h.body.read().splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    ref, parent, title = (
        rev if rev.startswith("refs/pr/") else f"refs/heads/{rev}",
        header.get("parentCommit"),
        header["summary"],
    )
    if not (head := repo.state["refs"].get(ref)):
        raise HubError(404, f"Invalid rev id: {rev}", "RevisionNotFound")
    if parent and pull:
        head = repo.resolve(parent)
    elif parent and not head.startswith(parent):
        raise HubError(412, "A commit has happened since. Please refresh and try again.")
    tree, url = repo.apply(head, [(line["key"], line["value"]) for line in lines if line["key"] != "header"]), None
    if pull:
        number = open_discussion(h, repo, title, header.get("description", ""), head)
        ref, url = f"refs/pr/{number}", f"{h.hub.web(kind, repo.state['id'])}/discussions/{number}"
    sha = repo.write_commit(ref, head, tree, title, header.get("description", ""), h.user)
    return {
        "success": True,
        "commitOid": sha,
        "commitUrl": f"{h.hub.web(kind, repo.state['id'])}/commit/{sha}",
        "hookOutput": "",
        "pullRequestUrl": url,
    }


# -- discussions and pull requests
def open_discussion(h, repo: Repo, title: str, text: str, base: str | None) -> int:
    number = len(repo.state["discussions"]) + 1
    repo.state["refs"] |= {f"refs/pr/{number}": base} if base else {}
    comment = {
        "id": secrets.token_hex(12),
        "type": "comment",
        "createdAt": now(),
        "author": {"name": h.user},
        "data": {"edited": False, "hidden": False, "latest": {"raw": text}},
    }
    repo.state["discussions"].append(
        {
            "num": number,
            "title": title,
            "status": "open",
            "isPullRequest": bool(base),
            "createdAt": now(),
            "author": {"name": h.user},
            "repo": {"name": repo.state["id"], "type": repo.state["type"]},
            "events": [comment],
            "filesWithConflicts": [],
            "changes": {"base": "refs/heads/main"},
        }
    )
    repo.save()
    return number


@route("GET", "/api/KIND/REPO/discussions(?:/NUM)?")
def discussions(h, kind, repo, num):
    items = h.repo(kind, repo).state["discussions"]
    if num and not 0 < int(num) <= len(items):
        raise HubError(404, f"No discussion {num}")
    return items[int(num) - 1] if num else {"discussions": items, "count": len(items), "start": 0}


@route("POST", "/api/KIND/REPO/discussions")
def create_discussion(h, kind, repo):
    repo, body = h.repo(kind, repo), h.json()
    h.require()
    base = repo.resolve("main") if body.get("pullRequest") else None
    return {"num": open_discussion(h, repo, body["title"], body.get("description", ""), base)}


@route("POST", "/api/KIND/REPO/discussions/NUM/merge")
def merge(h, kind, repo, num):
    repo = h.repo(kind, repo, write=True)
    item, main, head = repo.state["discussions"][int(num) - 1], repo.resolve("main"), repo.resolve(f"refs/pr/{num}")
    known = {c["id"] for c in repo.history(main)}
    base = next(c["tree"] for c in repo.history(head) if c["id"] in known)
    old, new = repo.commit(main)["tree"], repo.commit(head)["tree"]
    changed = {p for p in base.keys() | new.keys() if base.get(p) != new.get(p)}
    tree = {p: e for p, e in old.items() if p not in changed} | {p: new[p] for p in changed if p in new}
    item["status"] = "merged"
    item["changes"]["mergeCommitId"] = repo.write_commit("refs/heads/main", main, tree, item["title"], "", h.user)
    event = {
        "id": secrets.token_hex(12),
        "type": "status-change",
        "createdAt": now(),
        "author": {"name": h.user},
        "data": {"status": "merged"},
    }
    item["events"].append(event)
    repo.save()
    return {"newStatus": event}


# -- downloads: small files from here, LFS files by redirect to another host name, as on the Hub
@route("GET", "/WEB/(?:resolve|raw)/REV/FILE")
def resolve(h, kind, repo, rev, file):
    kind = kind.strip("/") or "models"
    found = h.repo(kind, repo, read=True)
    sha = found.resolve(rev)
    headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
    if not (entry := found.commit(sha)["tree"].get(file)):
        raise HubError(404, "Entry not found", "EntryNotFound", **headers)
    headers["ETag"] = f'"{entry["oid"]}"'
    if "lfs" not in entry:
        return serve(h, found.object(entry["sha256"]), headers)
    return (
        302,
        None,
        headers
        | {
            "Location": h.hub.sign(f"/_cdn/{kind}/{repo}/{entry['sha256']}"),
            "X-Linked-Size": str(entry["size"]),
            "X-Linked-ETag": f'"{entry["sha256"]}"',
        },
    )


@route("GET", "/_cdn/KIND/REPO/OID")
def cdn(h, kind, repo, oid):
    return serve(h, h.hub.signed_repo(h.path, kind, repo).object(oid), {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})


def serve(h, path: Path, headers: dict):
    size, headers = path.stat().st_size, headers | {"Content-Type": "application/octet-stream"}
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", h.headers.get("Range", ""))
    if not wanted or not (wanted[1] or wanted[2]):
        return 200, (path, 0, size), headers
    start = int(wanted[1]) if wanted[1] else max(0, size - int(wanted[2]))
    stop = min(size, int(wanted[2]) + 1) if wanted[1] and wanted[2] else size
    if start >= stop:
        raise HubError(416, "Range not satisfiable", **{"Content-Range": f"bytes */{size}"})
    return 206, (path, start, stop), headers | {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}


# -- test control over HTTP, for a server in another process
@route("POST", "/_admin/faults")
def admin_fault(h):
    h.hub.fault(**h.json())


@route("DELETE", "/_admin/faults")
def admin_clear(h):
    h.hub.clear_faults()


@route("GET", "/_admin/requests")
def admin_requests(h):
    return h.hub.requests
