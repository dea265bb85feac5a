//! Settings in the files of other programs: where a line is, and the command that changes it.

use std::fs;
use std::path::{Path, PathBuf};

/// Deepest directory below the first that is searched.
const MAX_DEPTH: usize = 2;

/// A line `NAME = VALUE` in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSetting {
    /// Its file.
    pub file: PathBuf,
    /// Its number, counted from 1.
    pub number: usize,
    /// The value.
    pub value: String,
}

impl FileSetting {
    /// Returns the command that replaces the line.
    pub fn replace(&self, line: &str) -> String {
        let mut text = String::new();
        for c in line.chars() {
            if matches!(c, '\\' | '&' | '|') {
                text.push('\\');
            }
            text.push(c);
        }
        format!(
            "sed -i '{}s|.*|{}|' {}",
            self.number,
            text.replace('\'', "'\\''"),
            self.file.display()
        )
    }

    /// Returns the command that makes the line a comment, so that the default holds.
    pub fn disable(&self) -> String {
        format!("sed -i '{}s|^|#|' {}", self.number, self.file.display())
    }
}

/// Finds the settings with this name and separator (`=`, `:`) in a file or in all files below a
/// directory. Hidden files and backups are left out.
pub fn settings(place: &Path, name: &str, separator: char) -> Vec<FileSetting> {
    let mut found = Vec::new();
    search(place, name, separator, 0, &mut found);
    found
}

fn search(place: &Path, name: &str, separator: char, depth: usize, found: &mut Vec<FileSetting>) {
    if let Ok(entries) = fs::read_dir(place) {
        let mut paths: Vec<PathBuf> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        let is_used = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            !name.starts_with('.') && !name.ends_with('~') && !name.ends_with(".dpkg-old")
        };
        for path in paths.iter().filter(|path| depth < MAX_DEPTH && is_used(path)) {
            search(path, name, separator, depth + 1, found);
        }
        return;
    }
    let Ok(text) = fs::read_to_string(place) else { return };
    for (index, line) in text.lines().enumerate() {
        let Some(rest) = line.trim_start().strip_prefix(name) else { continue };
        let Some(value) = rest.trim_start().strip_prefix(separator) else { continue };
        let value = value.trim().to_owned();
        found.push(FileSetting { file: place.to_owned(), number: index + 1, value });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_change_one_line() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("conf.d")).expect("a directory");
        let file = dir.path().join("conf.d/10-x.conf");
        let text = "a = 1\n  login = user=<%u>\n#login = 2\nlogin_x = 3\n";
        fs::write(&file, text).expect("written");
        let found = settings(dir.path(), "login", '=');
        let [setting] = &found[..] else { panic!("{found:?}") };
        assert_eq!((setting.number, &*setting.value), (2, "user=<%u>"));
        let run = |command: String| {
            let done = std::process::Command::new("sh").arg("-c").arg(command).status();
            assert!(done.expect("a shell").success());
            fs::read_to_string(&file).expect("a file")
        };
        let line = r"login = '\&|<%u>";
        let expected = text.replace("  login = user=<%u>", line);
        assert_eq!(run(setting.replace(line)), expected);
        assert_eq!(run(setting.disable()), expected.replace(line, &format!("#{line}")));
    }
}
