# Runs in the guest. What is printed here is read by `judge.rs`: each stage begins with its name, and the program's lines
# follow as it has written them.

export SELFDUMP_DIR=/store SELFDUMP_NAME=app SELFDUMP_KEEP=2

# program MEBIBYTES CHECKPOINTS: has a program make its checkpoints, and kills it.
program() {
    rm -rf /store/app
    # What the program before has said isn't to be taken for its word.
    : > /out
    setsid ${RUN:-scribbler} "$1" 1 "$2" > /out 2>&1 &
    program=$!
    while ! grep -q done /out; do
        kill -0 $program || break
        sleep 0.2
    done
    kill -9 $program
    cat /out
}

# Brings it back, which says what its memory is like.
back() {
    setsid selfdump restore app 2>&1
    tail -n 1 /out
}

# The shortest pause of the last program, in microseconds.
shortest() {
    sed -n 's/^saved pause \([0-9]*\) .*/\1/p' /out | sort -n | head -n 1
}

echo never > /sys/kernel/mm/transparent_hugepage/enabled

echo "stage full"
program 256 2

echo "stage limited"
export SELFDUMP_MAX_PAUSE=$(($(shortest) / 4))us
program 256 10
selfdump show app 2>&1 | grep budget
back

# From here on no pause is short enough, so that there are rounds whatever the program is like.
export SELFDUMP_MAX_PAUSE=1us

echo "stage damaged"
program 16 2
newest=$(echo /store/app/*/000002/ahead/1/pages-1.img)
printf X | dd of="$newest" bs=1 seek=5000 conv=notrunc 2> /dev/null
selfdump verify app 2>&1
back

echo "stage oldest"
SELFDUMP_CRIU=$OLDEST program 16 2
SELFDUMP_CRIU=$OLDEST back

echo "stage killed"
(
    while [ ! -e /store/app/*/000001.partial/ahead/1/pages-1.img ]; do
        sleep 0.02
    done
    kill -9 $(pidof criu)
) &
program 64 1
back

echo "stage cramped"
mkdir /cramped
mount -t tmpfs -o size=24m cramped /cramped
SELFDUMP_DIR=/cramped program 16 1

echo always > /sys/kernel/mm/transparent_hugepage/enabled

echo "stage huge pages"
program 64 1

echo "stage no huge pages"
SELFDUMP_HUGE_PAGES=off program 64 1

unset SELFDUMP_MAX_PAUSE
export SELFDUMP_SNAPSHOT=cow

# Only who has CAP_SYS_PTRACE may trace a process.
echo 2 > /proc/sys/kernel/yama/ptrace_scope

echo "stage copied"
program 16 1
selfdump show app 2>&1 | grep dumped
back

# Anybody may trace those that are below him.
echo 1 > /proc/sys/kernel/yama/ptrace_scope

echo "stage restricted"
mkdir -p /etc /tmp/user
echo "user:x:1000:1000::/tmp/user:/bin/sh" > /etc/passwd
chown 1000:1000 /tmp/user
RUN="start-stop-daemon -S -c user -x /bin/scribbler --" SELFDUMP_DIR=/tmp/user program 16 1

echo "stage end"
