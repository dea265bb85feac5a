//! Reads a file of networks that are never authorised.

use std::path::Path;

use super::table_file;
use crate::config::values::Network;
use crate::error::Failure;

/// Reads the networks in a file.
///
/// # Errors
/// The file cannot be read, is not trusted, or is invalid.
pub fn read_file(path: &Path) -> Result<Vec<Network>, Failure> {
    let form = "each line is a network or an address, and # begins a comment";
    table_file::read(path, "exclude", form, networks)
}

/// Parses lines of one network or address each.
fn networks(text: &str) -> Result<Vec<Network>, String> {
    let lines = (1..).zip(text.lines()).map(|(number, line)| {
        let line = line.split('#').next().unwrap_or_default().trim();
        (number, line.escape_debug().to_string())
    });
    let lines = lines.filter(|(_, line)| !line.is_empty());
    lines
        .map(|(number, line)| line.parse().map_err(|why| format!("line {number}: {why}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_file() {
        let read = |text: &str| {
            let networks = networks(text)?;
            Ok(networks.iter().map(|network| network.0.to_string()).collect::<Vec<_>>())
        };
        let text =
            "# Ours\n\n192.0.2.0/24\n\t198.51.100.7  # one\r\n2001:db8::/32\n::ffff:192.0.2.9\n#";
        let expected = ["192.0.2.0/24", "198.51.100.7/32", "2001:db8::/32", "192.0.2.9/32"];
        assert_eq!(read(text), Ok(expected.map(str::to_owned).into()));
        assert_eq!(read(""), Ok(Vec::new()));
        let rows = [
            ("192.0.2.0/24\nfetcher.example\n", "line 2: `fetcher.example` is not a network"),
            ("192.0.2.7/24", "line 1: `192.0.2.7/24` has bits"),
            ("\n192.0.2.7 192.0.2.8", "line 2: `192.0.2.7 192.0.2.8` is not a network"),
            ("\u{feff}192.0.2.7", "line 1: `\\u{feff}192.0.2.7` is not a network"),
            ("192.0.2.0/33", "line 1: "),
            ("none", "line 1: `none` is not a network"),
        ];
        for (text, part) in rows {
            let why: String = read(text).expect_err(text);
            assert!(why.contains(part), "{why}");
        }
    }
}
