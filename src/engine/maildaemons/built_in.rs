//! The built-in descriptions, embedded as they are written.

/// The name and text of every built-in description.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("courier", include_str!("courier.toml")),
    ("cucipop", include_str!("cucipop.toml")),
    ("cyrus", include_str!("cyrus.toml")),
    ("dbmail", include_str!("dbmail.toml")),
    ("dovecot", include_str!("dovecot.toml")),
    ("gnu-pop3d", include_str!("gnu-pop3d.toml")),
    ("imapproxy", include_str!("imapproxy.toml")),
    ("kopano", include_str!("kopano.toml")),
    ("nginx", include_str!("nginx.toml")),
    ("perdition", include_str!("perdition.toml")),
    ("popa3d", include_str!("popa3d.toml")),
    ("qpopper", include_str!("qpopper.toml")),
    ("solid-pop3d", include_str!("solid-pop3d.toml")),
    ("teapop", include_str!("teapop.toml")),
    ("tpop3d", include_str!("tpop3d.toml")),
    ("uw-imap", include_str!("uw-imap.toml")),
    ("vdpop3d", include_str!("vdpop3d.toml")),
    ("vm-pop3d", include_str!("vm-pop3d.toml")),
    ("vpopmail", include_str!("vpopmail.toml")),
];
