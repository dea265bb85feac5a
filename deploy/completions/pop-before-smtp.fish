# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_pop_before_smtp_global_optspecs
    string join \n h/help V/version
end

function __fish_pop_before_smtp_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_pop_before_smtp_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_pop_before_smtp_using_subcommand
    set -l cmd (__fish_pop_before_smtp_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c pop-before-smtp -n "__fish_pop_before_smtp_needs_command" -s h -l help -d 'Print help'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_needs_command" -s V -l version -d 'Print version'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_needs_command" -f -a "run" -d 'Run the daemon, in the foreground; log to stderr'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_needs_command" -f -a "test" -d 'Show what the daemon would do with log lines or syslog frames'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_needs_command" -f -a "check" -d 'Validate the configuration and the descriptions of mail daemons; print all errors at once'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_needs_command" -f -a "daemons" -d 'List the known mail daemons; with NAME, print its description as a template for your own'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_needs_command" -f -a "list" -d 'List the authorised addresses'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_needs_command" -f -a "query" -d 'Test whether an address is authorised; exit status 0: yes, 1: no'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_needs_command" -f -a "allow" -d 'Authorise an address manually'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_needs_command" -f -a "revoke" -d 'End an authorisation now'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_needs_command" -f -a "status" -d 'Show the daemon\'s status'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_needs_command" -f -a "watch" -d 'Print what happens to authorisations, as it happens: one JSON object per line'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_needs_command" -f -a "doctor" -d 'Diagnose Postfix or Exim, log forwarding and the daemon; exit status 0: nothing to fix, 1: something'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_needs_command" -f -a "wipe" -d 'Publish an empty map while no daemon runs'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -s c -l config -d 'Configuration file [default: /etc/pop-before-smtp/config.toml, if it exists]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l listen -d 'Receive syslog frames here: unix:/PATH[,mode=0660][,group=NAME] (datagram) or udp:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l allow-from -d 'Accept UDP frames only from these networks [default: loopback]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l allow-uid -d 'Accept Unix-socket frames only from processes of these users [default: everyone who can open the socket]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l allow-host -d 'Accept only messages of these host names; - stands for messages without one [default: every host]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l map -d 'Access map to publish; TYPE may be `auto`' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l map-value -d 'Value of each entry of the map, and of positive socketmap answers [default: OK]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l map-interval -d 'Longest pause after a publication of the map; it is shorter if that took little time [default: 1s]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l map-inexact-ipv6 -d 'Publish IPv6 addresses even where their key would admit other hosts too [default: false]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l socketmap -d 'Answer Postfix\'s socketmap lookups here: unix:/PATH[,mode=0660][,group=NAME] or inet:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l policy -d 'Answer Postfix\'s policy requests here: unix:/PATH[,mode=0660][,group=NAME] or inet:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l sender -d 'Envelope senders admitted by policy requests: any, user (the logged-in user), domain (that user\'s domain) [default: any]' -r -f -a "any\t'Any sender'
user\t'Only the logged-in user'
domain\t'Any sender in the domain of the logged-in user'"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l sender-domains -d 'Domains of users whose login name has none' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l sender-table -d 'File of lines `login address[, address...]`: further senders that users may use' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l sender-login-map -d 'Postfix map as in smtpd_sender_login_maps: senders, and the logins that may use them' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l sender-delimiter -d 'Characters that begin an address extension [default: Postfix\'s recipient_delimiter]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l sender-mismatch -d 'Answer to any other sender: dunno (as if not authorised), reject, or `reject TEXT` (550 5.7.1 and the text) [default: dunno]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l allow-null-sender -d 'Let users also send as the null sender <> [default: false]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l messages-per-hour -d 'Messages that an authorised address may relay within an hour; with `sender`, each user' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l recipients-per-hour -d 'Recipients to whom an authorised address may relay within an hour; with `sender`, each user' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l limit-action -d 'Beyond a limit: defer (450, try again later), or revoke (also end the authorisation, and block the address for the rest of the hour) [default: defer]' -r -f -a "defer\t'The client is asked to try again later'
revoke\t'Also, its grant ends, and the address is blocked'"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l limits -d 'File of lines `WHO messages-per-hour=N recipients-per-hour=N`: limits of some addresses, networks and users' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l remember-users -d 'Remember who has logged in [default: true]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l max-users-per-address -d 'Do not authorise an address from which more than this many users have logged in' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l users -d 'Let only the logins of these users authorise; @DOMAIN stands for all its users [default: every user]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l postfix-config -d 'Postfix\'s configuration directory [default: Postfix\'s own]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l grace -d 'How long a login authorises [default: 30m]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l extend-while-connected -d 'Keep clients authorised while they are connected, and count the grace from the log-out; if none is seen, assume it after this time [default: off]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l max-clients -d 'Maximum number of addresses; when it is reached, the entry closest to expiry is evicted [default: 65536]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l daemon -d 'Mail daemons whose logins count [default: all verified ones]' -r -f -a "courier\t''
cucipop\t''
cyrus\t''
dbmail\t''
dovecot\t''
gnu-pop3d\t''
imapproxy\t''
kopano\t''
nginx\t''
perdition\t''
popa3d\t''
qpopper\t''
solid-pop3d\t''
teapop\t''
tpop3d\t''
uw-imap\t''
vdpop3d\t''
vm-pop3d\t''
vpopmail\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l facility -d 'Accept a mail daemon\'s logins only from these facilities [default: any facility]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l daemons-dir -d 'Directory with your own mail daemons [default: /etc/pop-before-smtp/daemons]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l exclude -d 'Never authorise: loopback, link-local, own, gateway, mynetworks, a network, those in file:/PATH, or none [default: loopback link-local own gateway mynetworks]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l state -d 'File that keeps the authorised clients across restarts [default: /var/lib/pop-before-smtp/state]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l control -d 'Control socket: PATH[,mode=0660][,group=NAME] [default: /run/pop-before-smtp/control.sock]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l control-read -d 'Second, read-only control socket: PATH[,mode=0660][,group=NAME]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l cluster -d 'Share the clients with other hosts, over a store: redis://[USER@]HOST:PORT[/DB], rediss://... (TLS) or redis+unix:///PATH; of several the one that is primary' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l cluster-name -d 'Which hosts share: those with the same name [default: default]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l cluster-host -d 'How the other hosts call this one; each needs its own [default: the host\'s name]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l cluster-password-file -d 'File with the store\'s password' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l cluster-ca -d 'File with the certificates of authorities that may certify the store [default: the system\'s]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l cluster-cert -d 'File with this host\'s certificate' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l cluster-key -d 'File with the key of this host\'s certificate' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -s n -l dry-run -d 'Log what would be authorised and published; write no map and no state [default: false]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l metrics -d 'Serve metrics and health checks over HTTP here: inet:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l log-level -d 'Log messages of this and higher levels to stderr: error, warn, info, debug [default: info]' -r -f -a "error\t''
warn\t''
info\t''
debug\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -l log-format -d 'Format of the log: text, json, journald [default: journald if stderr is the journal, else text]' -r -f -a "text\t'A line with time and level'
json\t'One JSON object a line'
journald\t'A line after its syslog priority (sd-daemon(3))'"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand run" -s h -l help -d 'Print help'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand test" -l only -d 'Print only results with this verdict: login, logout, partial, excluded, none' -r -f -a "login\t''
logout\t''
partial\t''
excluded\t''
none\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand test" -s c -l config -d 'Configuration file [default: /etc/pop-before-smtp/config.toml, if it exists]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand test" -l daemon -d 'Mail daemons whose logins count [default: all verified ones]' -r -f -a "courier\t''
cucipop\t''
cyrus\t''
dbmail\t''
dovecot\t''
gnu-pop3d\t''
imapproxy\t''
kopano\t''
nginx\t''
perdition\t''
popa3d\t''
qpopper\t''
solid-pop3d\t''
teapop\t''
tpop3d\t''
uw-imap\t''
vdpop3d\t''
vm-pop3d\t''
vpopmail\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand test" -l facility -d 'Accept a mail daemon\'s logins only from these facilities [default: any facility]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand test" -l allow-host -d 'Accept only messages of these host names; - stands for messages without one [default: every host]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand test" -l daemons-dir -d 'Directory with your own mail daemons [default: /etc/pop-before-smtp/daemons]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand test" -l exclude -d 'Never authorise, as for `run`' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand test" -l postfix-config -d 'Postfix\'s configuration directory' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand test" -s 0 -l null -d 'Expect inputs to end with NUL instead of newline, so that a frame may contain newlines'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand test" -l json -d 'Print one JSON object per line'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand test" -l summary -d 'Print only the summary'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand test" -s h -l help -d 'Print help'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -s c -l config -d 'Configuration file [default: /etc/pop-before-smtp/config.toml, if it exists]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l listen -d 'Receive syslog frames here: unix:/PATH[,mode=0660][,group=NAME] (datagram) or udp:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l allow-from -d 'Accept UDP frames only from these networks [default: loopback]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l allow-uid -d 'Accept Unix-socket frames only from processes of these users [default: everyone who can open the socket]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l allow-host -d 'Accept only messages of these host names; - stands for messages without one [default: every host]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l map -d 'Access map to publish; TYPE may be `auto`' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l map-value -d 'Value of each entry of the map, and of positive socketmap answers [default: OK]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l map-interval -d 'Longest pause after a publication of the map; it is shorter if that took little time [default: 1s]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l map-inexact-ipv6 -d 'Publish IPv6 addresses even where their key would admit other hosts too [default: false]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l socketmap -d 'Answer Postfix\'s socketmap lookups here: unix:/PATH[,mode=0660][,group=NAME] or inet:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l policy -d 'Answer Postfix\'s policy requests here: unix:/PATH[,mode=0660][,group=NAME] or inet:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l sender -d 'Envelope senders admitted by policy requests: any, user (the logged-in user), domain (that user\'s domain) [default: any]' -r -f -a "any\t'Any sender'
user\t'Only the logged-in user'
domain\t'Any sender in the domain of the logged-in user'"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l sender-domains -d 'Domains of users whose login name has none' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l sender-table -d 'File of lines `login address[, address...]`: further senders that users may use' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l sender-login-map -d 'Postfix map as in smtpd_sender_login_maps: senders, and the logins that may use them' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l sender-delimiter -d 'Characters that begin an address extension [default: Postfix\'s recipient_delimiter]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l sender-mismatch -d 'Answer to any other sender: dunno (as if not authorised), reject, or `reject TEXT` (550 5.7.1 and the text) [default: dunno]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l allow-null-sender -d 'Let users also send as the null sender <> [default: false]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l messages-per-hour -d 'Messages that an authorised address may relay within an hour; with `sender`, each user' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l recipients-per-hour -d 'Recipients to whom an authorised address may relay within an hour; with `sender`, each user' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l limit-action -d 'Beyond a limit: defer (450, try again later), or revoke (also end the authorisation, and block the address for the rest of the hour) [default: defer]' -r -f -a "defer\t'The client is asked to try again later'
revoke\t'Also, its grant ends, and the address is blocked'"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l limits -d 'File of lines `WHO messages-per-hour=N recipients-per-hour=N`: limits of some addresses, networks and users' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l remember-users -d 'Remember who has logged in [default: true]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l max-users-per-address -d 'Do not authorise an address from which more than this many users have logged in' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l users -d 'Let only the logins of these users authorise; @DOMAIN stands for all its users [default: every user]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l postfix-config -d 'Postfix\'s configuration directory [default: Postfix\'s own]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l grace -d 'How long a login authorises [default: 30m]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l extend-while-connected -d 'Keep clients authorised while they are connected, and count the grace from the log-out; if none is seen, assume it after this time [default: off]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l max-clients -d 'Maximum number of addresses; when it is reached, the entry closest to expiry is evicted [default: 65536]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l daemon -d 'Mail daemons whose logins count [default: all verified ones]' -r -f -a "courier\t''
cucipop\t''
cyrus\t''
dbmail\t''
dovecot\t''
gnu-pop3d\t''
imapproxy\t''
kopano\t''
nginx\t''
perdition\t''
popa3d\t''
qpopper\t''
solid-pop3d\t''
teapop\t''
tpop3d\t''
uw-imap\t''
vdpop3d\t''
vm-pop3d\t''
vpopmail\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l facility -d 'Accept a mail daemon\'s logins only from these facilities [default: any facility]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l daemons-dir -d 'Directory with your own mail daemons [default: /etc/pop-before-smtp/daemons]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l exclude -d 'Never authorise: loopback, link-local, own, gateway, mynetworks, a network, those in file:/PATH, or none [default: loopback link-local own gateway mynetworks]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l state -d 'File that keeps the authorised clients across restarts [default: /var/lib/pop-before-smtp/state]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l control -d 'Control socket: PATH[,mode=0660][,group=NAME] [default: /run/pop-before-smtp/control.sock]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l control-read -d 'Second, read-only control socket: PATH[,mode=0660][,group=NAME]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l cluster -d 'Share the clients with other hosts, over a store: redis://[USER@]HOST:PORT[/DB], rediss://... (TLS) or redis+unix:///PATH; of several the one that is primary' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l cluster-name -d 'Which hosts share: those with the same name [default: default]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l cluster-host -d 'How the other hosts call this one; each needs its own [default: the host\'s name]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l cluster-password-file -d 'File with the store\'s password' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l cluster-ca -d 'File with the certificates of authorities that may certify the store [default: the system\'s]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l cluster-cert -d 'File with this host\'s certificate' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l cluster-key -d 'File with the key of this host\'s certificate' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -s n -l dry-run -d 'Log what would be authorised and published; write no map and no state [default: false]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l metrics -d 'Serve metrics and health checks over HTTP here: inet:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l log-level -d 'Log messages of this and higher levels to stderr: error, warn, info, debug [default: info]' -r -f -a "error\t''
warn\t''
info\t''
debug\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l log-format -d 'Format of the log: text, json, journald [default: journald if stderr is the journal, else text]' -r -f -a "text\t'A line with time and level'
json\t'One JSON object a line'
journald\t'A line after its syslog priority (sd-daemon(3))'"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -l json -d 'Print JSON'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand check" -s h -l help -d 'Print help'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand daemons" -l daemons-dir -d 'Directory with your own mail daemons [default: /etc/pop-before-smtp/daemons]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand daemons" -s c -l config -d 'Configuration file [default: /etc/pop-before-smtp/config.toml, if it exists]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand daemons" -l json -d 'Print JSON'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand daemons" -s h -l help -d 'Print help'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand list" -l control -d 'Control socket [default: as configured, or /run/pop-before-smtp/control.sock]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand list" -s c -l config -d 'Configuration file that names the control socket' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand list" -l watch -d 'Show the list until Ctrl-C: new (+) and ended (-) addresses are marked; needs a terminal'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand list" -l blocked -d 'List the addresses that are blocked instead'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand list" -l json -d 'Print JSON'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand list" -s h -l help -d 'Print help'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand query" -l control -d 'Control socket [default: as configured, or /run/pop-before-smtp/control.sock]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand query" -s c -l config -d 'Configuration file that names the control socket' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand query" -s h -l help -d 'Print help'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand allow" -l for -d 'Authorise for this time, at most 7 days [default: the grace]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand allow" -l note -d 'Note for other operators, shown by `list`' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand allow" -l control -d 'Control socket [default: as configured, or /run/pop-before-smtp/control.sock]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand allow" -s c -l config -d 'Configuration file that names the control socket' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand allow" -s h -l help -d 'Print help'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand revoke" -l block -d 'Refuse new authorisations for this time, at most 7 days' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand revoke" -l control -d 'Control socket [default: as configured, or /run/pop-before-smtp/control.sock]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand revoke" -s c -l config -d 'Configuration file that names the control socket' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand revoke" -s h -l help -d 'Print help'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand status" -l control -d 'Control socket [default: as configured, or /run/pop-before-smtp/control.sock]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand status" -s c -l config -d 'Configuration file that names the control socket' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand status" -l watch -d 'Show the status until Ctrl-C; needs a terminal'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand status" -l check -d 'Print only what affects mail; exit status 0: nothing, 1: something'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand status" -l json -d 'Print JSON'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand status" -s h -l help -d 'Print help'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand watch" -l control -d 'Control socket [default: as configured, or /run/pop-before-smtp/control.sock]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand watch" -s c -l config -d 'Configuration file that names the control socket' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand watch" -l initial -d 'First print the authorised addresses, then {"event":"ready"}'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand watch" -s h -l help -d 'Print help'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l log-socket -d 'Socket to which mail daemons log' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -s c -l config -d 'Configuration file [default: /etc/pop-before-smtp/config.toml, if it exists]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l listen -d 'Receive syslog frames here: unix:/PATH[,mode=0660][,group=NAME] (datagram) or udp:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l allow-from -d 'Accept UDP frames only from these networks [default: loopback]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l allow-uid -d 'Accept Unix-socket frames only from processes of these users [default: everyone who can open the socket]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l allow-host -d 'Accept only messages of these host names; - stands for messages without one [default: every host]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l map -d 'Access map to publish; TYPE may be `auto`' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l map-value -d 'Value of each entry of the map, and of positive socketmap answers [default: OK]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l map-interval -d 'Longest pause after a publication of the map; it is shorter if that took little time [default: 1s]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l map-inexact-ipv6 -d 'Publish IPv6 addresses even where their key would admit other hosts too [default: false]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l socketmap -d 'Answer Postfix\'s socketmap lookups here: unix:/PATH[,mode=0660][,group=NAME] or inet:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l policy -d 'Answer Postfix\'s policy requests here: unix:/PATH[,mode=0660][,group=NAME] or inet:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l sender -d 'Envelope senders admitted by policy requests: any, user (the logged-in user), domain (that user\'s domain) [default: any]' -r -f -a "any\t'Any sender'
user\t'Only the logged-in user'
domain\t'Any sender in the domain of the logged-in user'"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l sender-domains -d 'Domains of users whose login name has none' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l sender-table -d 'File of lines `login address[, address...]`: further senders that users may use' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l sender-login-map -d 'Postfix map as in smtpd_sender_login_maps: senders, and the logins that may use them' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l sender-delimiter -d 'Characters that begin an address extension [default: Postfix\'s recipient_delimiter]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l sender-mismatch -d 'Answer to any other sender: dunno (as if not authorised), reject, or `reject TEXT` (550 5.7.1 and the text) [default: dunno]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l allow-null-sender -d 'Let users also send as the null sender <> [default: false]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l messages-per-hour -d 'Messages that an authorised address may relay within an hour; with `sender`, each user' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l recipients-per-hour -d 'Recipients to whom an authorised address may relay within an hour; with `sender`, each user' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l limit-action -d 'Beyond a limit: defer (450, try again later), or revoke (also end the authorisation, and block the address for the rest of the hour) [default: defer]' -r -f -a "defer\t'The client is asked to try again later'
revoke\t'Also, its grant ends, and the address is blocked'"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l limits -d 'File of lines `WHO messages-per-hour=N recipients-per-hour=N`: limits of some addresses, networks and users' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l remember-users -d 'Remember who has logged in [default: true]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l max-users-per-address -d 'Do not authorise an address from which more than this many users have logged in' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l users -d 'Let only the logins of these users authorise; @DOMAIN stands for all its users [default: every user]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l postfix-config -d 'Postfix\'s configuration directory [default: Postfix\'s own]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l grace -d 'How long a login authorises [default: 30m]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l extend-while-connected -d 'Keep clients authorised while they are connected, and count the grace from the log-out; if none is seen, assume it after this time [default: off]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l max-clients -d 'Maximum number of addresses; when it is reached, the entry closest to expiry is evicted [default: 65536]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l daemon -d 'Mail daemons whose logins count [default: all verified ones]' -r -f -a "courier\t''
cucipop\t''
cyrus\t''
dbmail\t''
dovecot\t''
gnu-pop3d\t''
imapproxy\t''
kopano\t''
nginx\t''
perdition\t''
popa3d\t''
qpopper\t''
solid-pop3d\t''
teapop\t''
tpop3d\t''
uw-imap\t''
vdpop3d\t''
vm-pop3d\t''
vpopmail\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l facility -d 'Accept a mail daemon\'s logins only from these facilities [default: any facility]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l daemons-dir -d 'Directory with your own mail daemons [default: /etc/pop-before-smtp/daemons]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l exclude -d 'Never authorise: loopback, link-local, own, gateway, mynetworks, a network, those in file:/PATH, or none [default: loopback link-local own gateway mynetworks]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l state -d 'File that keeps the authorised clients across restarts [default: /var/lib/pop-before-smtp/state]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l control -d 'Control socket: PATH[,mode=0660][,group=NAME] [default: /run/pop-before-smtp/control.sock]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l control-read -d 'Second, read-only control socket: PATH[,mode=0660][,group=NAME]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l cluster -d 'Share the clients with other hosts, over a store: redis://[USER@]HOST:PORT[/DB], rediss://... (TLS) or redis+unix:///PATH; of several the one that is primary' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l cluster-name -d 'Which hosts share: those with the same name [default: default]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l cluster-host -d 'How the other hosts call this one; each needs its own [default: the host\'s name]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l cluster-password-file -d 'File with the store\'s password' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l cluster-ca -d 'File with the certificates of authorities that may certify the store [default: the system\'s]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l cluster-cert -d 'File with this host\'s certificate' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l cluster-key -d 'File with the key of this host\'s certificate' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -s n -l dry-run -d 'Log what would be authorised and published; write no map and no state [default: false]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l metrics -d 'Serve metrics and health checks over HTTP here: inet:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l log-level -d 'Log messages of this and higher levels to stderr: error, warn, info, debug [default: info]' -r -f -a "error\t''
warn\t''
info\t''
debug\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l log-format -d 'Format of the log: text, json, journald [default: journald if stderr is the journal, else text]' -r -f -a "text\t'A line with time and level'
json\t'One JSON object a line'
journald\t'A line after its syslog priority (sd-daemon(3))'"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -l json -d 'Print JSON'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -s c -l config -d 'Configuration file [default: /etc/pop-before-smtp/config.toml, if it exists]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l listen -d 'Receive syslog frames here: unix:/PATH[,mode=0660][,group=NAME] (datagram) or udp:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l allow-from -d 'Accept UDP frames only from these networks [default: loopback]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l allow-uid -d 'Accept Unix-socket frames only from processes of these users [default: everyone who can open the socket]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l allow-host -d 'Accept only messages of these host names; - stands for messages without one [default: every host]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l map -d 'Access map to publish; TYPE may be `auto`' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l map-value -d 'Value of each entry of the map, and of positive socketmap answers [default: OK]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l map-interval -d 'Longest pause after a publication of the map; it is shorter if that took little time [default: 1s]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l map-inexact-ipv6 -d 'Publish IPv6 addresses even where their key would admit other hosts too [default: false]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l socketmap -d 'Answer Postfix\'s socketmap lookups here: unix:/PATH[,mode=0660][,group=NAME] or inet:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l policy -d 'Answer Postfix\'s policy requests here: unix:/PATH[,mode=0660][,group=NAME] or inet:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l sender -d 'Envelope senders admitted by policy requests: any, user (the logged-in user), domain (that user\'s domain) [default: any]' -r -f -a "any\t'Any sender'
user\t'Only the logged-in user'
domain\t'Any sender in the domain of the logged-in user'"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l sender-domains -d 'Domains of users whose login name has none' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l sender-table -d 'File of lines `login address[, address...]`: further senders that users may use' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l sender-login-map -d 'Postfix map as in smtpd_sender_login_maps: senders, and the logins that may use them' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l sender-delimiter -d 'Characters that begin an address extension [default: Postfix\'s recipient_delimiter]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l sender-mismatch -d 'Answer to any other sender: dunno (as if not authorised), reject, or `reject TEXT` (550 5.7.1 and the text) [default: dunno]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l allow-null-sender -d 'Let users also send as the null sender <> [default: false]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l messages-per-hour -d 'Messages that an authorised address may relay within an hour; with `sender`, each user' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l recipients-per-hour -d 'Recipients to whom an authorised address may relay within an hour; with `sender`, each user' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l limit-action -d 'Beyond a limit: defer (450, try again later), or revoke (also end the authorisation, and block the address for the rest of the hour) [default: defer]' -r -f -a "defer\t'The client is asked to try again later'
revoke\t'Also, its grant ends, and the address is blocked'"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l limits -d 'File of lines `WHO messages-per-hour=N recipients-per-hour=N`: limits of some addresses, networks and users' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l remember-users -d 'Remember who has logged in [default: true]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l max-users-per-address -d 'Do not authorise an address from which more than this many users have logged in' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l users -d 'Let only the logins of these users authorise; @DOMAIN stands for all its users [default: every user]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l postfix-config -d 'Postfix\'s configuration directory [default: Postfix\'s own]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l grace -d 'How long a login authorises [default: 30m]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l extend-while-connected -d 'Keep clients authorised while they are connected, and count the grace from the log-out; if none is seen, assume it after this time [default: off]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l max-clients -d 'Maximum number of addresses; when it is reached, the entry closest to expiry is evicted [default: 65536]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l daemon -d 'Mail daemons whose logins count [default: all verified ones]' -r -f -a "courier\t''
cucipop\t''
cyrus\t''
dbmail\t''
dovecot\t''
gnu-pop3d\t''
imapproxy\t''
kopano\t''
nginx\t''
perdition\t''
popa3d\t''
qpopper\t''
solid-pop3d\t''
teapop\t''
tpop3d\t''
uw-imap\t''
vdpop3d\t''
vm-pop3d\t''
vpopmail\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l facility -d 'Accept a mail daemon\'s logins only from these facilities [default: any facility]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l daemons-dir -d 'Directory with your own mail daemons [default: /etc/pop-before-smtp/daemons]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l exclude -d 'Never authorise: loopback, link-local, own, gateway, mynetworks, a network, those in file:/PATH, or none [default: loopback link-local own gateway mynetworks]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l state -d 'File that keeps the authorised clients across restarts [default: /var/lib/pop-before-smtp/state]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l control -d 'Control socket: PATH[,mode=0660][,group=NAME] [default: /run/pop-before-smtp/control.sock]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l control-read -d 'Second, read-only control socket: PATH[,mode=0660][,group=NAME]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l cluster -d 'Share the clients with other hosts, over a store: redis://[USER@]HOST:PORT[/DB], rediss://... (TLS) or redis+unix:///PATH; of several the one that is primary' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l cluster-name -d 'Which hosts share: those with the same name [default: default]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l cluster-host -d 'How the other hosts call this one; each needs its own [default: the host\'s name]' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l cluster-password-file -d 'File with the store\'s password' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l cluster-ca -d 'File with the certificates of authorities that may certify the store [default: the system\'s]' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l cluster-cert -d 'File with this host\'s certificate' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l cluster-key -d 'File with the key of this host\'s certificate' -r -F
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -s n -l dry-run -d 'Log what would be authorised and published; write no map and no state [default: false]' -r -f -a "true\t''
false\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l metrics -d 'Serve metrics and health checks over HTTP here: inet:HOST:PORT' -r
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l log-level -d 'Log messages of this and higher levels to stderr: error, warn, info, debug [default: info]' -r -f -a "error\t''
warn\t''
info\t''
debug\t''"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -l log-format -d 'Format of the log: text, json, journald [default: journald if stderr is the journal, else text]' -r -f -a "text\t'A line with time and level'
json\t'One JSON object a line'
journald\t'A line after its syslog priority (sd-daemon(3))'"
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand wipe" -s h -l help -d 'Print help'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand help; and not __fish_seen_subcommand_from run test check daemons list query allow revoke status watch doctor wipe help" -f -a "run" -d 'Run the daemon, in the foreground; log to stderr'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand help; and not __fish_seen_subcommand_from run test check daemons list query allow revoke status watch doctor wipe help" -f -a "test" -d 'Show what the daemon would do with log lines or syslog frames'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand help; and not __fish_seen_subcommand_from run test check daemons list query allow revoke status watch doctor wipe help" -f -a "check" -d 'Validate the configuration and the descriptions of mail daemons; print all errors at once'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand help; and not __fish_seen_subcommand_from run test check daemons list query allow revoke status watch doctor wipe help" -f -a "daemons" -d 'List the known mail daemons; with NAME, print its description as a template for your own'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand help; and not __fish_seen_subcommand_from run test check daemons list query allow revoke status watch doctor wipe help" -f -a "list" -d 'List the authorised addresses'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand help; and not __fish_seen_subcommand_from run test check daemons list query allow revoke status watch doctor wipe help" -f -a "query" -d 'Test whether an address is authorised; exit status 0: yes, 1: no'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand help; and not __fish_seen_subcommand_from run test check daemons list query allow revoke status watch doctor wipe help" -f -a "allow" -d 'Authorise an address manually'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand help; and not __fish_seen_subcommand_from run test check daemons list query allow revoke status watch doctor wipe help" -f -a "revoke" -d 'End an authorisation now'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand help; and not __fish_seen_subcommand_from run test check daemons list query allow revoke status watch doctor wipe help" -f -a "status" -d 'Show the daemon\'s status'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand help; and not __fish_seen_subcommand_from run test check daemons list query allow revoke status watch doctor wipe help" -f -a "watch" -d 'Print what happens to authorisations, as it happens: one JSON object per line'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand help; and not __fish_seen_subcommand_from run test check daemons list query allow revoke status watch doctor wipe help" -f -a "doctor" -d 'Diagnose Postfix or Exim, log forwarding and the daemon; exit status 0: nothing to fix, 1: something'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand help; and not __fish_seen_subcommand_from run test check daemons list query allow revoke status watch doctor wipe help" -f -a "wipe" -d 'Publish an empty map while no daemon runs'
complete -c pop-before-smtp -n "__fish_pop_before_smtp_using_subcommand help; and not __fish_seen_subcommand_from run test check daemons list query allow revoke status watch doctor wipe help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
