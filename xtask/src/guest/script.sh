# Runs in the guest. What is printed here is read by `judge.rs`: each stage begins with its name, and the program's lines
# follow as it has written them.

export SELFDUMP_DIR=/store SELFDUMP_NAME=app SELFDUMP_KEEP=2

# program MEBIBYTES CHECKPOINTS: has a program make its checkpoints, and kills it.
program() {
    rm -rf /store/app
    setsid scribbler "$1" 1 "$2" > /out 2>&1 &
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

echo "stage end"
