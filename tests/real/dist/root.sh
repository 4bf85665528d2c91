# root.sh LAB PACKAGE CRIU SCRIPT: runs SCRIPT where the whole machine is seen through a layer that takes all changes, and
# goes with its mount namespace, which has to be a new one.
set -eu
lab=$1 package=$2 criu=$3 script=$4
mount -t tmpfs tmpfs "$lab"
mkdir "$lab/changes" "$lab/work" "$lab/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$lab/changes,workdir=$lab/work" "$lab/root"
cd "$lab/root"
for folder in proc sys dev; do
    mount --rbind "/$folder" "./$folder"
done
mount -t tmpfs tmpfs ./run
# It may lie on another file system.
mkdir -p ".$criu" ./before
mount --bind "$criu" ".$criu"
cp "$package" ./package.deb
cp "$script" ./script.sh
pivot_root . before
cd /
umount -l /before
# What is open on a mount that is gone from here couldn't be dumped; 255 is this script.
for descriptor in $(ls /proc/self/fd); do
    [ "$descriptor" -le 2 ] || [ "$descriptor" -eq 255 ] || eval "exec $descriptor<&-"
done
exec bash /script.sh "$criu/bin/criu"
