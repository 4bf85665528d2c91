"""What fails: a script that has criu dump its own process, as its child."""

import os
import subprocess
import sys

criu, images = sys.argv[1:]
os.mkdir(images)
dump = [criu, "dump", "--tree", str(os.getpid()), "--images-dir", images, "--leave-running", "--shell-job"]
done = subprocess.run([*dump, "--log-file", "dump.log"], check=False)
with open(f"{images}/dump.log", encoding="utf-8") as log:
    print("criu", done.returncode, [line for line in log if "within dumped tree" in line], flush=True)
