#!/bin/busybox sh
# The first process of the guest: what a distribution's would do and CRIU needs, then the script.
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /store /root
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs -o size=75% store /store
for module in /modules/*; do
    insmod "$module"
done
ifconfig lo up
. /script
poweroff -f
