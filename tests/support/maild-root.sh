#!/bin/bash
# maild-root.sh TOOLS FILES ROOT LOG: runs a mail daemon in a private root, with the commands in /start of FILES.
#
# Run it in private mount and process namespaces (unshare --mount --pid), so that no process outlives
# it. TOOLS is a directory of unpacked packages. ROOT, an empty directory, gets this machine's /usr below
# that of TOOLS, read-only; the rest of TOOLS, then FILES, copied into memory; and /dev/log, which is the
# socket LOG, or a link to `socket` in the directory LOG. The daemon ends when standard input is closed.
set -euo pipefail
tools=$1 files=$2 root=$3 log=$4

mount -t tmpfs -o mode=755 maild "$root"
cd "$root"
mkdir dev proc run usr
mkdir -m 1777 tmp
mount -t overlay -o "ro,lowerdir=$tools/usr:/usr" maild usr
for part in "$tools"/*; do
    [ "$part" = "$tools/usr" ] || cp -a "$part" .
done
cp -a "$files/." .
mkdir -p var
ln -sfn /run var/run
for device in full null random urandom zero; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
if [ -d "$log" ]; then
    mkdir syslog
    mount --bind "$log" syslog
    ln -s ../syslog/socket dev/log
else
    touch dev/log
    mount --bind "$log" dev/log
fi
mount -t proc proc proc

# PID 1 is a shell: it adopts the children of daemons that exit.
exec chroot . /bin/bash -c '. /start < /dev/null; read -r _ || true'
