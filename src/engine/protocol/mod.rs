//! Postfix's lookup protocols: decodes requests and writes replies.

pub mod decoded;
pub mod login_maps;
pub mod netstring;
pub mod policy;
pub mod sender_logins;
pub mod socketmap;
pub mod table;
