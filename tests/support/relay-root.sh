#!/bin/bash
# relay-root.sh TARGET WORK BASE [COMMAND...]: runs a container of deploy/relay without a container engine.
#
# Run it in private mount and process namespaces (unshare --mount --pid --fork). BASE, the lower directories
# of an overlay, is what the target of the Containerfile has installed; COPY, ENV, USER and ENTRYPOINT of the
# target are carried out. The volumes are directories of WORK. COMMAND replaces the entry point and runs as
# root. As in compose.yaml, the root of all but Postfix is read-only, and only Postfix has capabilities.
set -euo pipefail
target=$1 work=$2 base=$3
shift 3
cd "$(dirname "$0")/../.."

stage=$(sed -n "/^FROM .* AS $target\$/,/^\$/p" deploy/relay/Containerfile)
lines() { sed -n "s/^$1 //p" <<< "$stage"; }
words() { lines "$1" | tr -d '[],"'; }

mount -t tmpfs -o mode=755 relay "$work/$target"
mkdir "$work/$target"/{layer,work,root}
root=$work/$target/root
mount -t overlay -o "lowerdir=$base,upperdir=$work/$target/layer,workdir=$work/$target/work" relay "$root"
while read -r from to; do
    [[ $from == --from=* ]] || install -D -m "$(stat -c %a "$from")" "$from" "$root$to"
done < <(lines COPY)
if [ "$target" = postfix ]; then
    install -D -m 644 "$work/ca.pem" "$root/etc/ssl/certs/ca-certificates.crt"
    install -m 644 "$work/hosts" "$root/etc/hosts"
fi

share() { mkdir -p "$root$2"; mount --bind "$work/$1" "$root$2"; }
share state /var/lib/relay
case $target in
dovecot) share syslog /syslog ;;
postfix) share policy /var/lib/relay/queue/pop-before-smtp ;;
pop-before-smtp) share syslog /syslog; share policy /postfix; share run /run/pop-before-smtp ;;
esac
# Secrets belong to a user of the host.
[ "$target" = pop-before-smtp ] || share secrets /run/secrets

mkdir -p "$root"/{dev,proc,tmp}
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in full null random urandom zero; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
if [ "$target" != postfix ]; then
    mount -o remount,ro "$root"
    mount -t tmpfs -o mode=1777 tmp "$root/tmp"
fi

mapfile -t variables < <(lines ENV; env | grep '^POP_BEFORE_SMTP_' || true)
enter=(env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${variables[@]}")
chroot=$(command -v chroot)
user=$(lines USER)
if [ $# -gt 0 ]; then
    exec "${enter[@]}" "$chroot" "$root" "$@"
elif [ "$target" = postfix ]; then
    capabilities=$(sed -n 's/^ *cap_add: \[\(.*\)\]$/\1/p' deploy/relay/compose.yaml | tail -n 1)
    capabilities=$(tr -d ' ' <<< "+${capabilities//, /,+}" | tr '[:upper:]' '[:lower:]')
    exec "${enter[@]}" "$chroot" "$root" setpriv --no-new-privs --inh-caps=-all \
        --bounding-set="-all,$capabilities" $(words ENTRYPOINT)
fi
exec setpriv --no-new-privs "${enter[@]}" "$chroot" --userspec="$user" --groups=65532 "$root" $(words ENTRYPOINT) $(words CMD)
