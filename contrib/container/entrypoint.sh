#!/bin/sh
# The entry point of a container whose program goes on where the last container has left it: `entrypoint.sh COMMAND…`.
#
# By exec, so that the runner is process 1: the runtime's SIGTERM has to reach it, and not a shell that ignores it.
exec selfdump run --resume --name "${SELFDUMP_NAME:-${1##*/}}" -- "$@"
