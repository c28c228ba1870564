"""Shake, where GHC and its library are installed (`apt-get install libghc-shake-dev`: 1.5 GB, so not by us)."""

import subprocess

from common import install

from .base import Peer

RULES = """\
import Development.Shake
import qualified Data.Map as Map

main :: IO ()
main = do
  graph <- fmap (map words . lines) (readFile "graph.txt")
  let files = Map.fromList [(out, ins) | (out : ins) <- graph]
  shakeArgs shakeOptions{shakeFiles = ".shake", shakeChange = ChangeModtimeAndDigest} $ do
    want (Map.keys files)
    "o//*" %> \\out -> do
      let ins = files Map.! out
      need ins
      cmd_ Shell ("head -qc 32 " ++ unwords ins ++ " > " ++ out)
"""


class Shake(Peer):
    name = "Shake"
    most = 10_000

    def install(self):
        ghc = install.system("ghc")
        home = install.HOME / "shake"
        self.program = home / "bench"
        if not self.program.exists():
            home.mkdir(parents=True, exist_ok=True)
            (home / "Bench.hs").write_text(RULES)
            argv = [ghc, "-O1", "-threaded", "-rtsopts", "-with-rtsopts=-I0", "Bench.hs", "-o", "bench"]
            done = subprocess.run(argv, cwd=home, capture_output=True, text=True)
            if done.returncode != 0:
                raise install.NotHere("its library is not here: `apt-get install libghc-shake-dev` has it")

    def version(self):
        return install.version(self.program, "--version")

    def write(self, targets, root):
        lines = [" ".join([f"o/{t.name}", f"src/{t.name}", *(f"o/{n}" for n in t.needs)]) for t in targets]
        (root / "graph.txt").write_text("\n".join(lines) + "\n")

    def argv(self, root):
        return [self.program, "-j2", "--silent"]
