use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;

const LIMIT: u64 = 10;
const OTHER_USER: u32 = 4711;
/// What opens at once takes a thousandth of this.
const AT_ONCE: Duration = Duration::from_secs(10);

fn home() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn file(home: &TempDir, name: &str, mode: u32) -> PathBuf {
    let path = home.path().join(name);
    fs::write(&path, "text").expect("a file");
    set_mode(&path, mode);
    path
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

fn give(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), None).expect("the tests run as root");
}

/// Returns the message and the hint of a refusal.
fn message<T: std::fmt::Debug>(outcome: Result<T, ReadFailure>) -> String {
    outcome.expect_err("a refusal").failure(Failure::config, "file", "see").to_string()
}

fn is_refused<T: std::fmt::Debug>(outcome: Result<T, ReadFailure>, expected: &[&str]) {
    let message = message(outcome);
    for part in expected {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

#[test]
fn files_of_root_and_the_daemon_are_read() {
    let home = home();
    for mode in [0o400, 0o600, 0o644, 0o755, 0o444] {
        let path = file(&home, "file", mode);
        assert_eq!(read(&path, LIMIT).expect("trusted"), b"text", "{mode:o}");
        open_own(&path, LIMIT, geteuid().as_raw()).expect("trusted");
    }
}

#[test]
fn other_writers_are_reported() {
    let home = home();
    let rows: [(u32, u32, &[&str]); 5] = [
        (0, 0o664, &["is not trusted: its group can write to it (mode 664)", "`chmod g-w {}`"]),
        (0, 0o646, &["others can write to it (mode 646)", "`chmod o-w {}`"]),
        (0, 0o666, &["its group and others can write to it (mode 666)", "`chmod go-w {}`"]),
        (OTHER_USER, 0o644, &["it belongs to user 4711", "`chown root {}`"]),
        (
            OTHER_USER,
            0o664,
            &["user 4711, and its group can", "`chown root {}` and `chmod g-w {}`"],
        ),
    ];
    for (owner, mode, expected) in rows {
        let path = file(&home, "file", mode);
        give(&path, owner);
        let shown = path.display().to_string();
        let expected: Vec<_> = expected.iter().map(|part| part.replace("{}", &shown)).collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        is_refused(read(&path, LIMIT), &expected);
        is_refused(
            open_own(&path, LIMIT, 0),
            &[&expected[..], &[&format!("`rm {shown}`")]].concat(),
        );
    }
}

#[test]
fn unmapped_owner_is_not_trusted() {
    let home = home();
    let path = file(&home, "file", 0o644);
    give(&path, NOBODY);
    is_refused(read(&path, LIMIT), &["user 65534, which may be any user", "outside the container"]);
}

#[test]
fn own_file_may_belong_to_the_daemons_user() {
    let home = home();
    let path = file(&home, "file", 0o600);
    give(&path, OTHER_USER);
    open_own(&path, LIMIT, OTHER_USER).expect("the daemon's user owns it");
    is_refused(open_own(&path, LIMIT, 12), &["it belongs to user 4711", "`chown 12 "]);
}

#[test]
fn link_and_its_file_must_be_trusted() {
    let home = home();
    let (link, path) = (home.path().join("link"), file(&home, "file", 0o644));
    symlink("file", &link).expect("a link");
    assert_eq!(read(&link, LIMIT).expect("as Kubernetes mounts it"), b"text");
    let remove = format!("`rm {}`", link.display());
    is_refused(open_own(&link, LIMIT, 0), &["it is a symbolic link", &remove]);
    give(&link, OTHER_USER);
    let fix = format!("`chown -h root {}`", link.display());
    is_refused(read(&link, LIMIT), &["it is a symbolic link, and it belongs to user 4711", &fix]);
    give(&link, 0);
    give(&path, OTHER_USER);
    is_refused(read(&link, LIMIT), &["it belongs to user 4711"]);
    fs::remove_file(&path).expect("it is there");
    assert!(read(&link, LIMIT).expect_err("it leads nowhere").is_missing());
}

#[test]
fn irregular_files_are_refused_at_once() {
    let home = home();
    let at = |name: &str| home.path().join(name);
    mkfifo(&at("pipe"), Mode::S_IRUSR).expect("a pipe");
    let _socket = UnixListener::bind(at("socket")).expect("a socket");
    let (done, refused) = mpsc::channel();
    let paths = [at("pipe"), at("socket"), at(""), "/dev/zero".into(), "/dev/tty".into()];
    let count = paths.len();
    thread::spawn(move || {
        for path in paths {
            let messages = (message(read(&path, LIMIT)), message(open_own(&path, LIMIT, 0)));
            done.send((path, messages)).expect("the test receives it");
        }
    });
    for _ in 0..count {
        let (path, (read, own)) = refused.recv_timeout(AT_ONCE).expect("it does not wait");
        // Without a terminal the system opens none.
        let expected = if path == Path::new("/dev/tty") { "file" } else { "not a regular file" };
        assert!(read.contains(expected) && own.contains(expected), "{read}, {own}");
    }
}

#[test]
fn size_has_a_limit() {
    let home = home();
    let path = file(&home, "file", 0o644);
    fs::write(&path, "0123456789").expect("a file");
    assert_eq!(read(&path, LIMIT).expect("it fits").len(), 10);
    let mut file = fs::OpenOptions::new().append(true).open(&path).expect("a file");
    file.write_all(b"x").expect("written");
    is_refused(read(&path, LIMIT), &["it is larger than 10 bytes"]);
    is_refused(open_own(&path, LIMIT, 0), &["it is larger than 10 bytes"]);
}

#[test]
fn writers_of_a_directory_are_reported() {
    let home = home();
    let path = home.path().join("daemons");
    assert!(list(&path).expect_err("not there").is_missing());
    fs::create_dir(&path).expect("a directory");
    fs::write(path.join("own.toml"), "").expect("a file");
    set_mode(&path, 0o755);
    let own = path.join("own.toml");
    let files = |path: &Path| {
        let files = list(path).expect("trusted");
        files.into_iter().filter(|path| path.extension().is_some()).collect::<Vec<_>>()
    };
    assert_eq!(files(&path), std::slice::from_ref(&own));
    let link = home.path().join("link");
    symlink("daemons", &link).expect("a link");
    assert_eq!(files(&link), [link.join("own.toml")]);
    set_mode(&path, 0o1777);
    is_refused(list(&path), &["its group and others can write to it (mode 1777)", "`chmod go-w "]);
    set_mode(&path, 0o755);
    chown(&path, Some(OTHER_USER), None).expect("root");
    is_refused(list(&path), &["it belongs to user 4711", "`chown root "]);
    is_refused(list(&own), &["it is not a directory"]);
}

#[test]
fn world_writable_directories_get_a_remark() {
    let home = home();
    let files = [home.path().join("a"), home.path().join("b"), "/nowhere/c".into()];
    for (mode, open) in [(0o755, false), (0o775, false), (0o1777, false), (0o757, true)] {
        set_mode(home.path(), mode);
        let expected = open.then(|| {
            let directory = home.path().display();
            format!("any local user can write to {directory}, and so could authorise any address")
        });
        let found = remarks(files.iter().map(PathBuf::as_path));
        assert_eq!(found, Vec::from_iter(expected), "{mode:o}");
    }
}
