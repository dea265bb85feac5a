#!/bin/bash
# systemd-root.sh FILES ROOT [BASE]: runs the real systemd as PID 1, with a journal, in a private root.
#
# Run it in a private mount namespace (unshare --mount). ROOT, an empty directory, gets this machine's
# /usr, changed in memory only; its accounts and the files in /etc that systemd and Postfix require; and
# FILES. With BASE, the root of a whole system, it gets that system with its services instead, changed in
# memory only, and FILES. The network is only loopback. Everything ends when standard input is closed.
# systemd-root.sh --inside ROOT is the second half, as PID 1.
set -euo pipefail

if [ "$1" = --inside ]; then
    cd "$2"
    # Only what is below our control group is visible now.
    umount sys/fs/cgroup
    mount -t cgroup2 cgroup sys/fs/cgroup
    mount -t proc proc proc
    ip link set lo up
    mkdir old
    pivot_root . old
    umount -l old
    rmdir old
    mount --make-rshared /
    exec env -i container=test PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --system --unit=test.target \
        --show-status=no --log-target=journal < /dev/null
fi

# Builds a root from this machine in the working directory, without its services.
own_root() {
    mkdir -p dev etc/systemd/system home layer/{usr,work} proc root run/lock sys usr var/{lib,log,spool}
    mkdir -m 1777 tmp var/tmp
    ln -s ../run var/run
    for name in bin lib lib64 sbin; do
        ln -s "usr/$name" "$name"
    done
    mount -t overlay -o "lowerdir=/usr,upperdir=$root/layer/usr,workdir=$root/layer/work" usr usr
    for name in passwd group shadow gshadow nsswitch.conf ld.so.cache postfix; do
        [ ! -e "/etc/$name" ] || cp -a "/etc/$name" etc/
    done
    # Services of this machine are not started.
    rm -rf usr/lib/systemd/system/*.wants usr/lib/systemd/system-generators usr/lib/{sysusers,tmpfiles}.d/*
}

files=$1 root=$2 base=${3-}
mount -t tmpfs -o mode=755 root "$root"
cd "$root"
if [ -n "$base" ]; then
    mkdir layer work whole
    mount -t overlay -o "lowerdir=$base,upperdir=$root/layer,workdir=$root/work" root whole
    root=$root/whole
    cd "$root"
    wanted=multi-user.target
else
    wanted='basic.target systemd-journald.service'
    own_root
fi
tr -d - < /proc/sys/kernel/random/uuid > etc/machine-id
printf '[Unit]\nRequires=%s\nAfter=%s\n' "$wanted" "$wanted" > etc/systemd/system/test.target
cp -a "$files/." .

mount -t tmpfs -o mode=755 dev dev
mkdir dev/pts dev/shm
for device in full null random tty urandom zero; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mount -t devpts -o newinstance,ptmxmode=666 pts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=755 run run
mkdir run/lock
mount -t sysfs -o ro sys sys
mount -t cgroup2 cgroup sys/fs/cgroup

group=$root/sys/fs/cgroup/pop-before-smtp-test-$$
mkdir "$group"
exec 3<&0
(
    echo "$BASHPID" > "$group/cgroup.procs"
    exec setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --uts --ipc --net --cgroup \
        bash "$0" --inside "$root"
) < /dev/null > /dev/null 3<&- &
# The parent of PID 1.
echo $!
read -r _ <&3 || true
exec 2> /dev/null
kill -KILL $! || true
wait $! || true
# The last processes may take a moment to exit.
for _ in {1..100}; do
    find "$group" -depth -type d -exec rmdir {} + && break
    sleep 0.05
done
