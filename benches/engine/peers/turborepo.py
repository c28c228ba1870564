"""Turborepo: each target a package of an npm workspace, without its daemon."""

import json
import subprocess

from common import install

from .base import Peer


class Turborepo(Peer):
    name = "Turborepo"
    most = 1_000

    def install(self):
        # The program itself, not the script that starts it under node.
        install.npm("turbo", "turbo/bin/turbo")
        self.program = install.npm("turbo", "@turbo/linux-64/bin/turbo")

    def version(self):
        return "turbo " + install.version(self.program, "--version")

    def source(self, root, target):
        return root / "packages" / target.flat / "src"

    def output(self, root, target):
        return root / "packages" / target.flat / "o"

    def write(self, targets, root):
        flat = [(t.flat, [n.replace("/", "-") for n in t.needs]) for t in targets]
        for name, needs in flat:
            files = " ".join(["src", *(f"../{n}/o" for n in needs)])
            package = {"name": name, "version": "1.0.0", "scripts": {"build": f"head -qc 32 {files} > o"}}
            package["dependencies"] = {n: "*" for n in needs}
            (root / "packages" / name / "package.json").write_text(json.dumps(package))
        self.workspace(root, ["o"])
        lock = {"name": "bench", "lockfileVersion": 3, "requires": True, "packages": {"": {"workspaces": ["packages/*"]}}}
        for name, needs in flat:
            lock["packages"][f"node_modules/{name}"] = {"resolved": f"packages/{name}", "link": True}
            lock["packages"][f"packages/{name}"] = {"version": "1.0.0", "dependencies": {n: "*" for n in needs}}
        (root / "package-lock.json").write_text(json.dumps(lock))

    def workspace(self, root, outputs):
        root_package = {"name": "bench", "private": True, "packageManager": "npm@10.0.0", "workspaces": ["packages/*"]}
        (root / "package.json").write_text(json.dumps(root_package))
        task = {"dependsOn": ["^build"], "inputs": ["src"], "outputs": outputs}
        (root / "turbo.json").write_text(json.dumps({"tasks": {"build": task}}))
        (root / ".gitignore").write_text(".turbo\nnode_modules\n" + "".join(f"packages/*/{o}\n" for o in outputs))
        for argv in (["init", "-q"], ["add", "-A"], ["-c", "user.name=b", "-c", "user.email=b@b", "commit", "-qm", "b"]):
            subprocess.run(["git", *argv], cwd=root, check=True, capture_output=True)

    def argv(self, root):
        return [self.program, "run", "build", "--no-daemon", "--concurrency=2", "--output-logs=none", "--ui=stream"]
