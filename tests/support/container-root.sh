#!/bin/bash
# container-root.sh IMAGE VOLUMES ARGUMENTS...: runs `pop-before-smtp ARGUMENTS...` as a container engine does.
#
# Run it in a private mount namespace (unshare --mount). The directory IMAGE becomes the root, read-only;
# the directories in VOLUMES are mounted where the images have their volumes. The user has a number and
# no name, and the environment has only PATH.
set -euo pipefail
image=$1 volumes=$2
shift 2

mount --bind "$image" "$image"
mount --bind "$volumes/state" "$image/var/lib/pop-before-smtp"
mount --bind "$volumes/run" "$image/run/pop-before-smtp"
mount --bind "$volumes/syslog" "$image/syslog"
mount --bind "$volumes/postfix" "$image/postfix"
mount -t proc proc "$image/proc"
mount -t tmpfs -o mode=755 dev "$image/dev"
touch "$image/dev/null"
mount --bind /dev/null "$image/dev/null"
mount -o remount,bind,ro "$image"

chroot=$(command -v chroot)
exec setpriv --no-new-privs env -i PATH=/usr/sbin:/usr/bin \
    "$chroot" --userspec=65532:65532 --groups= "$image" /pop-before-smtp "$@"
