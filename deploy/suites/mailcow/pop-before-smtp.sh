#!/bin/bash
# mailcow: data/hooks/dovecot/pop-before-smtp.sh, executable. At each start of the Dovecot container it lets
# syslog-ng there forward Dovecot's log. An update of mailcow keeps the file and brings a new syslog-ng.conf.
for conf in /etc/syslog-ng/syslog-ng.conf /etc/syslog-ng/syslog-ng-redis_slave.conf; do
    [ -e "$conf" ] && ! grep -q pop_before_smtp "$conf" || continue
    cp -p "$conf" "$conf.new"
    cat >> "$conf.new" << 'END'
# As deploy/syslog-ng/pop-before-smtp.conf: up to 20,000 lines wait while pop-before-smtp is down.
destination d_pop_before_smtp {
    unix-dgram("/run/pop-before-smtp/socket" time-reopen(1) log-fifo-size(20000)
               template("<$PRI>$R_ISODATE $HOST $MSGHDR$MSG\n"));
};
log { source(s_dgram); destination(d_pop_before_smtp); };
END
    # With a faulty file syslog-ng would not start, and neither would Dovecot. --syntax-only does not find
    # out whether a source exists.
    if grep -q '^source s_dgram ' "$conf" && syslog-ng --no-caps --syntax-only --cfgfile "$conf.new"; then
        mv "$conf.new" "$conf"
    else
        echo "pop-before-smtp: nothing is forwarded: mailcow's $conf has changed, and this hook does not fit it"
        rm "$conf.new"
    fi
done
exit 0
