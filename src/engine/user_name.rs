//! Login names as they are compared and counted.

use smol_str::{SmolStr, StrExt as _};

/// Returns a name in lower case, letter by letter: the same in all places of a name.
pub fn fold(name: &str) -> SmolStr {
    name.to_lowercase_smolstr()
}

/// Returns the name under which a user is counted: a mail daemon may log one user with and without a
/// domain. `assumed` are the domains of names without one, in lower case.
pub fn counted(name: &str, assumed: &[String]) -> SmolStr {
    let name = fold(name);
    match name.rsplit_once('@') {
        Some((local, domain)) if assumed.iter().any(|own| own == domain) => local.into(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_one_user_are_counted_together() {
        let assumed = ["example.org".to_owned()];
        let rows = [
            ("joe", "joe"),
            ("Joe@Example.ORG", "joe"),
            ("joe@example.com", "joe@example.com"),
            ("\u{39f}\u{394}\u{39f}\u{3a3}@example.org", "\u{3bf}\u{3b4}\u{3bf}\u{3c3}"),
        ];
        for (name, expected) in rows {
            assert_eq!(counted(name, &assumed), expected, "{name}");
        }
        assert_eq!(counted("joe@example.org", &[]), "joe@example.org");
    }
}
