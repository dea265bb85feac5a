#!/bin/bash
# docker-mailserver: docker-data/dms/config/user-patches.sh, or append this to yours. It runs in each new
# container, after everything else is configured and before rsyslogd and Postfix start.
here=/tmp/docker-mailserver
cp "$here/pop-before-smtp.conf" /etc/rsyslog.d/00-pop-before-smtp.conf
bash "$here/postfix-restrictions" \
    'check_policy_service { unix:/pop-before-smtp/policy, timeout=3s, default_action=DUNNO }'
