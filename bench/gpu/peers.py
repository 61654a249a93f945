"""Assembles the folder that peers are timed from (peers/ at the root, or what RLSD_PEERS names) from sources at hand.

    python3 bench/gpu/peers.py OUT SOURCE[@COMMIT] ...

A SOURCE is a checkout, a clone without a work tree, or a folder of installed packages; each peer is taken from the first
that has it. @COMMIT says where a folder without git comes from. Only files that are run are taken, with their licence,
and ORIGIN.json says what they are. The packages get empty __init__.py files: their own import compiled extensions and
transformers, which a bare GPU machine does not have and these kernels do not need. OUT is not for this repository.
"""

import argparse
import hashlib
import json
import pathlib
import re
import subprocess
import sys

# Where each peer's kernel may lie in a source, the file that it becomes, and where its version and licence may be.
# {info} is the folder that pip writes beside an installed package.
PEERS = [
    {
        "name": "flash-attention", "repository": "https://github.com/Dao-AILab/flash-attention", "licence": "BSD-3-Clause",
        "module": "flash_attn/ops/triton/cross_entropy.py", "places": ["flash_attn/ops/triton/cross_entropy.py"],
        "versions": ["flash_attn/__init__.py"], "distributions": ["flash_attn"],
    },
    {
        "name": "Liger-Kernel", "repository": "https://github.com/linkedin/Liger-Kernel", "licence": "BSD-2-Clause",
        "module": "liger_kernel/ops/grpo_loss.py",
        "places": ["src/liger_kernel/ops/grpo_loss.py", "liger_kernel/ops/grpo_loss.py"],
        "versions": ["pyproject.toml"], "distributions": ["liger_kernel"],
    },
    {
        "name": "TRL", "repository": "https://github.com/huggingface/trl", "licence": "Apache-2.0",
        "module": "trl_losses/logprob_entropy.py",
        "places": ["kernels/torch-ext/trl_losses/logprob_entropy.py", "trl_losses/logprob_entropy.py",
                   "trl/kernels/logprob_entropy.py"],
        "versions": ["kernels/build.toml"], "distributions": ["trl_losses", "trl"],
    },
]  # fmt: skip
LICENCES = ["LICENSE", "LICENSE.txt", "{info}/licenses/LICENSE", "{info}/LICENSE"]
VERSION = re.compile(r"^(?:__version__|version|Version)\s*[:=]\s*[\"']?([\w.+-]+)", re.MULTILINE)


class Source:
    """A folder of files, or the newest commit of a git directory without a work tree."""

    def __init__(self, given):
        path, _, commit = given.rpartition("@")
        named = bool(path) and re.fullmatch(r"[0-9a-f]{7,40}", commit) is not None
        self.path = pathlib.Path(path if named else given)
        if not self.path.is_dir():
            sys.exit(f"no folder: {self.path}")
        top = self._git("rev-parse", "--show-toplevel")
        bare = self._git("rev-parse", "--is-bare-repository") == b"true\n"
        # A folder inside somebody else's checkout is not that checkout.
        self.git = bare or (top is not None and pathlib.Path(top.decode().strip()) == self.path.resolve())
        head = self._git("rev-parse", "HEAD") if self.git else None
        self.commit = head.decode().strip() if head else commit if named else None

    def _git(self, *words):
        done = subprocess.run(["git", "-C", str(self.path), *words], capture_output=True)
        return done.stdout if done.returncode == 0 else None

    def read(self, name):
        file = self.path / name
        if file.is_file():
            return file.read_bytes()
        return self._git("show", f"HEAD:{name}") if self.git else None

    def changed(self, name):
        return bool(self.git and self._git("status", "--porcelain", "--", name))

    def info(self, distributions):
        found = [path for name in distributions for path in sorted(self.path.glob(f"{name}-*.dist-info"), reverse=True)]
        return found[0].name if found else "none"


def first(source, places):
    """(place, content) of the first file that the source has."""
    for place in places:
        content = source.read(place)
        if content is not None:
            return place, content
    return None, None


def version_of(source, peer, info):
    _, text = first(source, [f"{info}/METADATA", *peer["versions"]])
    match = VERSION.search(text.decode()) if text else None
    return match.group(1) if match else None


def take(source, peer, out):
    """Writes a peer's files; what ORIGIN.json says of it, or None where the source does not have it."""
    place, kernel = first(source, peer["places"])
    if kernel is None:
        return None
    info = source.info(peer["distributions"])
    module = out / peer["module"]
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_bytes(kernel)
    package = out / pathlib.PurePath(peer["module"]).parts[0]
    for folder in [module.parent, *module.parent.parents]:
        if folder == out:
            break
        (folder / "__init__.py").write_text("")
    _, licence = first(source, [name.format(info=info) for name in LICENCES])
    if licence is not None:
        (package / "LICENSE").write_bytes(licence)
    return {
        "repository": peer["repository"], "commit": source.commit, "version": version_of(source, peer, info),
        "licence": peer["licence"], "licence_text": licence is not None, "file": place,
        "changed_since_commit": source.changed(place), "sha256": hashlib.sha256(kernel).hexdigest(),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("sources", nargs="+", type=Source, metavar="SOURCE[@COMMIT]")
    options = parser.parse_args()
    origin = {}
    for peer in PEERS:
        for source in options.sources:
            taken = take(source, peer, options.out)
            if taken is not None:
                origin[peer["name"]] = taken
                break
        else:
            print(f"{peer['name']}: in none of the sources ({', '.join(peer['places'])})")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "ORIGIN.json").write_text(json.dumps(origin, indent=1) + "\n")
    for name, taken in origin.items():
        print(f"{name}: {taken['version'] or 'version unknown'}, {taken['commit'] or 'commit unknown'}")
    sys.exit(len(origin) < len(PEERS))


if __name__ == "__main__":
    main()
