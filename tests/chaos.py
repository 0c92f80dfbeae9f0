"""Kills a training at each of its operations on files, and judges what it resumes to.

    pip install ckpt-chaos==0.1.8   # Python 3.9 or later
    python -m tests.chaos

The package kills a training before each operation, with each file that Python writes cut in half,
by SIGTERM, and with all that was not synced thrown away. A training that is resumed must come to
the bits of one that was left alone, from the newest checkpoint that was whole.
"""
import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile

from tests.conftest import ROOT

TRAIN = ["train_mnist.py", "--dataset", "synthetic", "--num-examples", "600", "--batch-size", "20",
         "--cpus", "1", "--add-stn", "--num-epochs", "2", "--resume", "--model-prefix", "{out}/a"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", default="before,torn,term,unsynced", help="ways to be killed")
    parser.add_argument("--max-points", type=int, default=1000, help="how often at most")
    args = parser.parse_args()
    if importlib.util.find_spec("ckpt_chaos") is None:
        parser.error("it needs a package: pip install ckpt-chaos==0.1.8")
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [sys.executable, "-m", "ckpt_chaos", "run", "--work", os.path.join(folder, "runs"),
             "--modes", args.modes, "--max-points", str(args.max_points),
             "--step-regex", r"Resumes .*(?:after|epoch) (\d+)(?: epochs|,)",
             "--checkpoint-glob", "{out}/a-0*.params",
             "--result-file", "{out}/a-export/model-0000.params",
             "--fail-on", "HARD_FAIL,SILENT_DIVERGENCE,LOST_WORK", "--", sys.executable, *TRAIN],
            cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
