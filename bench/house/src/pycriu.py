"""A dump by pycriu, CRIU's own client for Python; prints how many microseconds it took."""

import os
import sys
import time

import pycriu

criu, pid, images, shell_job, file_locks, ext_unix_sk = sys.argv[1:]
folder = os.open(images, os.O_DIRECTORY)
began = time.time_ns()
client = pycriu.criu()
client.use_binary(criu)
client.opts.pid = int(pid)
client.opts.images_dir_fd = folder
client.opts.leave_running = True
client.opts.log_level = 2
client.opts.log_file = "dump.log"
client.opts.shell_job = bool(shell_job)
client.opts.file_locks = bool(file_locks)
client.opts.ext_unix_sk = bool(ext_unix_sk)
client.opts.manage_cgroups_mode = pycriu.rpc.IGNORE
client.dump()
print((time.time_ns() - began) / 1000)
