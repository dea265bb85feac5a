//! Postfix's questions: from bytes to a request, and from an answer to bytes.

pub mod decoded;
pub mod login_maps;
pub mod netstring;
pub mod policy;
pub mod sender_logins;
pub mod socketmap;
