//! Publications with Debian's own postmap, and with faulty programs in its place.
//!
//! - **Needs**: the packages postfix, postfix-lmdb and postfix-cdb; root, to mount a small disk.
//!   Without them these tests fail and report what is missing.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use pop_before_smtp::engine::publication::Generation;
use pop_before_smtp::error::Failure;
use pop_before_smtp::postfix::Postfix;
use pop_before_smtp::postfix::access_map::{MapTarget, NotPublished, Step};
use pop_before_smtp::postfix::map_spec::{MapSpec, MapValue};
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::support::install;
use crate::support::small_disk::SmallDisk;

/// A configuration directory, a directory for the map, and the program that acts as postmap.
struct Lab {
    dir: TempDir,
    postfix: Postfix,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let etc = dir.path().join("etc");
        for new in [&etc, &dir.path().join("map")] {
            fs::create_dir(new).expect("a directory");
        }
        fs::write(etc.join("master.cf"), "").expect("master.cf");
        let postfix = Postfix::locate(Some(etc))
            .expect("these tests need Postfix: apt-get install postfix postfix-lmdb postfix-cdb");
        let lab = Self { dir, postfix };
        lab.main_cf("compatibility_level = 3.6");
        lab
    }

    /// Adds to main.cf.
    fn main_cf(&self, line: &str) {
        let path = self.dir.path().join("etc/main.cf");
        let mut file = File::options().create(true).append(true).open(path).expect("main.cf");
        writeln!(file, "{line}").expect("main.cf");
        // Postfix waits if a file changed within the last second, and reads it again.
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        file.set_modified(long_ago).expect("an old file");
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("map/clients")
    }

    /// Replaces postmap by a shell script; `$REAL` is postmap itself.
    fn fake_postmap(&mut self, script: &str) {
        let real = Postfix::locate(None).expect("Postfix").postmap;
        let text = format!("#!/bin/sh\nREAL={}\n{script}\n", real.display());
        let (source, program) = (self.dir.path().join("script"), self.dir.path().join("postmap"));
        fs::write(&source, text).expect("a script");
        install(&source, &program);
        self.postfix.postmap = program;
    }

    async fn target(&self, kind: &str) -> MapTarget {
        self.prepare(kind).await.expect(kind)
    }

    async fn prepare(&self, kind: &str) -> Result<MapTarget, Failure> {
        let spec: MapSpec = format!("{kind}:{}", self.path().display()).parse().expect("a map");
        MapTarget::prepare(self.postfix.clone(), &spec, MapValue::default()).await
    }

    /// Returns what Postfix finds in the published map.
    fn look_up(&self, kind: &str, key: &str) -> Option<String> {
        let real = Postfix::locate(self.postfix.config_dir.clone()).expect("Postfix");
        let mut command = Command::new(real.postmap);
        command.arg("-c").arg(self.dir.path().join("etc"));
        command.args(["-q", key]).arg(format!("{kind}:{}", self.path().display()));
        let output = command.output().expect("postmap");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said, "", "postmap -q {key} {kind}");
        let found = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        (!found.is_empty()).then_some(found)
    }

    /// Returns the file names in the directory of the map.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join("map")).expect("the directory");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn generation(number: u64, addresses: &[&str]) -> Arc<Generation> {
    let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    Arc::new(Generation::new(number, addresses))
}

fn large_generation(number: u64, size: u32) -> Arc<Generation> {
    let address = |n| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n));
    Arc::new(Generation::new(number, (1..=size).map(address).collect()))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[tokio::test]
async fn publishes_and_replaces_each_type() {
    for (kind, extension) in [("hash", ".db"), ("btree", ".db"), ("lmdb", ".lmdb"), ("cdb", ".cdb")]
    {
        let lab = Lab::new();
        let mut target = lab.target(kind).await;
        assert_eq!(target.table(), format!("{kind}:{}", lab.path().display()));
        assert_eq!(lab.files(), Vec::<String>::new(), "{kind}: prepare leaves no file");

        let addresses = ["192.0.2.7", "2001:db8:1:2:3:4:5:6"];
        target.publish(&generation(1, &addresses)).await.expect(kind);
        for address in addresses {
            assert_eq!(lab.look_up(kind, address).as_deref(), Some("OK"), "{kind} {address}");
        }
        assert_eq!(lab.look_up(kind, "192.0.2.8"), None, "{kind}");
        assert_eq!(lab.look_up(kind, "_pbs_generation_").as_deref(), Some("DUNNO 1"), "{kind}");
        let compiled = format!("clients{extension}");
        assert_eq!(lab.files(), ["clients", &compiled], "{kind}");
        let compiled = lab.dir.path().join("map").join(compiled);
        assert_eq!((mode(&lab.path()), mode(&compiled)), (0o644, 0o644), "{kind}");

        // A reader that has the old file open keeps a complete old map.
        let old = File::open(&compiled).expect("the compiled map");
        target.publish(&generation(2, &["192.0.2.8"])).await.expect(kind);
        assert_eq!(lab.look_up(kind, "192.0.2.7"), None, "{kind}");
        assert_eq!(lab.look_up(kind, "192.0.2.8").as_deref(), Some("OK"), "{kind}");
        assert_eq!(old.metadata().expect("open").nlink(), 0, "{kind}: replaced by rename");

        target.publish(&generation(3, &[])).await.expect(kind);
        assert_eq!(lab.look_up(kind, "192.0.2.8"), None, "{kind}: the empty map is valid");
        let text = fs::read_to_string(lab.path()).expect("the source");
        assert_eq!(text, "_pbs_generation_ DUNNO 3\n", "{kind}");
    }
}

/// The map's directory has no inode left.
#[tokio::test]
async fn fallback_map_needs_no_disk_space() {
    let lab = Lab::new();
    let _disk = SmallDisk::mount_with(lab.dir.path().join("map"), "nr_inodes=16");
    let mut target = lab.target("lmdb").await;
    target.publish(&generation(1, &["192.0.2.7"])).await.expect("published");
    target.prepare_fallback().await.expect("prepared");
    let mut names = (0..).map(|number| lab.dir.path().join(format!("map/filler{number}")));
    let mut fill = || {
        let made = names.by_ref().take_while(|path| File::create(path).is_ok());
        made.collect::<Vec<PathBuf>>()
    };
    let mut fillers = fill();
    target.publish(&generation(2, &[])).await.expect_err("no room for its source");
    assert_eq!(lab.look_up("lmdb", "192.0.2.7").as_deref(), Some("OK"));

    target.empty().await.expect("emptied");
    assert_eq!(lab.look_up("lmdb", "192.0.2.7"), None);
    assert!(lab.look_up("lmdb", "_pbs_generation_").is_some(), "the empty map is valid");
    let text = fs::read_to_string(lab.path()).expect("the source");
    assert_eq!(text, "_pbs_generation_ DUNNO 0\n");
    target.empty().await.expect_err("no fallback map is left");
    // Replacing the old map has freed its inodes.
    fillers.extend(fill());
    target.prepare_fallback().await.expect_err("no room");
    fillers.iter().for_each(|path| fs::remove_file(path).expect("removed"));
    target.publish(&generation(3, &["192.0.2.7"])).await.expect("published");
    target.prepare_fallback().await.expect("prepared again");
    target.empty().await.expect("emptied again");
    assert_eq!(lab.look_up("lmdb", "192.0.2.7"), None);
}

#[tokio::test]
async fn external_changes_are_detected() {
    let lab = Lab::new();
    let mut target = lab.target("hash").await;
    assert_eq!(target.modified_externally().await, None, "nothing has been published yet");
    let (source, compiled) = (lab.path(), lab.path().with_extension("db"));
    let rewrite = |path: &Path| {
        let text = fs::read(path).expect("the file");
        fs::remove_file(path).and_then(|()| fs::write(path, text)).expect("written");
    };
    let rows: [(&str, &Path, &dyn Fn()); 5] = [
        ("the source is removed", &source, &|| fs::remove_file(&source).expect("removed")),
        ("the map is removed", &compiled, &|| fs::remove_file(&compiled).expect("removed")),
        ("the source is edited", &source, &|| fs::write(&source, "x OK\n").expect("written")),
        ("another map of the same size", &compiled, &|| rewrite(&compiled)),
        ("the directory is removed", &compiled, &|| {
            fs::remove_dir_all(compiled.parent().expect("a directory")).expect("removed");
        }),
    ];
    for (number, (what, path, change)) in (1..).zip(rows) {
        target.publish(&generation(number, &["192.0.2.7"])).await.expect(what);
        assert_eq!(lab.look_up("hash", "192.0.2.7").as_deref(), Some("OK"), "{what}");
        assert_eq!(target.modified_externally().await, None, "{what}: before the change");
        change();
        assert_eq!(target.modified_externally().await.as_deref(), Some(path), "{what}");
    }
}

#[tokio::test]
async fn auto_is_the_default_type_of_postfix() {
    for kind in ["hash", "lmdb"] {
        let lab = Lab::new();
        lab.main_cf(&format!("default_database_type = {kind}"));
        let mut target = lab.target("auto").await;
        assert_eq!(target.table(), format!("{kind}:{}", lab.path().display()));
        target.publish(&generation(1, &["192.0.2.7"])).await.expect(kind);
        assert_eq!(lab.look_up(kind, "192.0.2.7").as_deref(), Some("OK"));
    }
}

#[tokio::test]
async fn unsuitable_types_are_refused() {
    let lab = Lab::new();
    for (kind, what) in [
        ("dbm", "postmap must build it"),
        ("texthash", "available: hash, btree, lmdb, cdb"),
        ("cidr", "postmap must build it"),
        ("regexp", "postmap must build it"),
        ("socketmap", "postmap must build it"),
        ("nonsense", "postmap must build it"),
    ] {
        let failure = lab.prepare(kind).await.expect_err(kind).to_string();
        assert!(failure.contains(what) && failure.contains("hint: "), "{failure}");
    }
    lab.main_cf("default_database_type = texthash");
    let failure = lab.prepare("auto").await.expect_err("texthash").to_string();
    assert!(failure.contains("default_database_type"), "{failure}");
}

#[tokio::test]
async fn missing_type_is_reported_with_its_package() {
    let mut lab = Lab::new();
    lab.fake_postmap("echo hash; echo cidr");
    lab.postfix.postconf = lab.postfix.postmap.clone();
    let failure = lab.prepare("lmdb").await.expect_err("lmdb").to_string();
    assert!(failure.contains("does not support the map type lmdb; available: hash"), "{failure}");
    assert!(failure.contains("apt-get install postfix-lmdb"), "{failure}");
}

#[tokio::test]
async fn missing_main_cf_is_reported() {
    let mut lab = Lab::new();
    lab.postfix.config_dir = Some(lab.dir.path().join("map"));
    for failure in [
        lab.prepare("hash").await.expect_err("no main.cf"),
        lab.postfix.parameter("mynetworks").await.expect_err("no main.cf"),
    ] {
        let message = failure.to_string();
        assert!(message.contains("main.cf: No such file"), "{message}");
        assert!(message.contains("postfix-config"), "{message}");
    }
}

#[tokio::test]
async fn reads_parameters() {
    let lab = Lab::new();
    lab.main_cf("nets = 192.0.2.0/24");
    lab.main_cf("mynetworks = 127.0.0.0/8, $nets,\n  [::1]/128");
    let value = lab.postfix.parameter("mynetworks").await.expect("a value");
    assert_eq!(value, "127.0.0.0/8, 192.0.2.0/24, [::1]/128");
    assert_eq!(lab.postfix.parameter("relayhost").await.expect("a value"), "");
    assert!(lab.postfix.parameter("no_such_thing").await.is_err());
}

/// Asserts that a failure at `step` keeps the old map, and that the next attempt succeeds.
async fn fails_and_recovers(lab: &mut Lab, kind: &str, script: &str, step: Step, why: &str) {
    let real = lab.postfix.postmap.clone();
    lab.fake_postmap(script);
    let mut target = lab.target(kind).await;
    let failure = target.publish(&generation(2, &["192.0.2.8"])).await.expect_err(script);
    assert_old_map(lab, kind, &failure, step, why);
    lab.postfix.postmap = real;
    let mut target = lab.target(kind).await;
    target.publish(&generation(1, &["192.0.2.7"])).await.expect("repaired");
}

fn assert_old_map(lab: &Lab, kind: &str, failure: &NotPublished, step: Step, why: &str) {
    let message = failure.to_string();
    assert_eq!(failure.step, step, "{message}");
    assert!(message.contains(why), "{message}");
    assert!(message.len() < 600 && !message.contains(char::is_control), "{message}");
    assert!(message.ends_with("the previous map, if any, stays in use"), "{message}");
    assert_eq!(lab.look_up(kind, "192.0.2.7").as_deref(), Some("OK"), "{message}");
    assert_eq!(lab.look_up(kind, "192.0.2.8"), None, "{message}");
    assert_eq!(lab.files().len(), 2, "{message}: {:?}", lab.files());
}

#[tokio::test]
async fn faulty_postmap_keeps_the_old_map() {
    let mut lab = Lab::new();
    lab.target("hash").await.publish(&generation(1, &["192.0.2.7"])).await.expect("published");
    let build = r#"case "$*" in *"-r "*) "#;
    for (script, step, why) in [
        ("echo 'postmap: fatal: no luck' >&2; exit 1", Step::Build, "status: 1: postmap: fatal"),
        ("kill -9 $$", Step::Build, "signal: 9"),
        ("for f; do :; done; echo half > ${f#*:}.db; kill -9 $$", Step::Build, "signal: 9"),
        ("yes \"$(printf '\\033[2J')nonsense\" | head -c 5000000; exit 0", Step::Build, "printed"),
        ("yes nonsense | head -c 5000000 >&2; exit 1", Step::Build, "nonsense"),
        // It exits with status 0, and did nothing, or something else.
        ("exit 0", Step::Check, "_pbs_generation_ is \"\", expected \"DUNNO 2\""),
        (&format!("{build} exit 0;; *) exec $REAL \"$@\";; esac"), Step::Check, "open database"),
        ("echo DUNNO 1", Step::Check, "DUNNO 1"),
        ("echo DUNNO 2", Step::Install, "built no file"),
        (
            &format!(
                "{build} for f; do :; done; : > ${{f#*:}}.db; : > ${{f#*:}}.lmdb;; *) echo DUNNO 2;; esac"
            ),
            Step::Install,
            "more than one file",
        ),
    ] {
        fails_and_recovers(&mut lab, "hash", script, step, why).await;
    }
}

#[tokio::test]
async fn missing_postmap_is_reported() {
    let mut lab = Lab::new();
    lab.target("hash").await.publish(&generation(1, &["192.0.2.7"])).await.expect("published");
    lab.postfix.postmap = lab.dir.path().join("nowhere");
    let mut target = lab.target("hash").await;
    let failure = target.publish(&generation(2, &["192.0.2.8"])).await.expect_err("no postmap");
    assert_old_map(&lab, "hash", &failure, Step::Build, "could not be started");
}

#[tokio::test]
async fn hanging_postmap_is_killed() {
    let mut lab = Lab::new();
    lab.target("hash").await.publish(&generation(1, &["192.0.2.7"])).await.expect("published");
    lab.fake_postmap("exec sleep 1000");
    let mut target = lab.target("hash").await;
    // Paused time jumps to the limit when nothing but the child is waited for.
    tokio::time::pause();
    let failure = target.publish(&generation(2, &["192.0.2.8"])).await.expect_err("it hangs");
    tokio::time::resume();
    assert_old_map(
        &lab,
        "hash",
        &failure,
        Step::Build,
        "did not finish within 60 s and was killed",
    );
}

#[tokio::test]
async fn dropped_publication_keeps_the_old_map() {
    let mut lab = Lab::new();
    lab.target("hash").await.publish(&generation(1, &["192.0.2.7"])).await.expect("published");
    lab.fake_postmap(r#"[ -e "$0.begun" ] && exec $REAL "$@"; : > "$0.begun"; exec sleep 1000"#);
    let begun = lab.dir.path().join("postmap.begun");
    let mut target = lab.target("hash").await;
    let called = tokio::task::spawn_blocking(move || {
        for _ in 0..10_000 {
            if begun.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("postmap was not called")
    });
    let second = generation(2, &["192.0.2.8"]);
    tokio::select! {
        outcome = target.publish(&second) => panic!("{outcome:?}"),
        begun = called => begun.expect("begun"),
    }
    assert_eq!(lab.look_up("hash", "192.0.2.7").as_deref(), Some("OK"));
    target.publish(&generation(3, &["192.0.2.8"])).await.expect("the next one");
    assert_eq!(lab.look_up("hash", "192.0.2.8").as_deref(), Some("OK"));
    assert_eq!(lab.files(), ["clients", "clients.db"]);
}

/// Other processes read the map all the time.
#[tokio::test(flavor = "multi_thread")]
async fn readers_always_find_the_map() {
    for kind in ["hash", "lmdb", "cdb"] {
        let lab = Lab::new();
        let mut target = lab.target(kind).await;
        target.publish(&generation(1, &["192.0.2.7"])).await.expect(kind);
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            let readers = threads.spawn(|| {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(lab.look_up(kind, "192.0.2.7").as_deref(), Some("OK"), "{kind}");
                    count += 1;
                }
                count
            });
            tokio::task::block_in_place(|| {
                let publications = async {
                    for number in 2..20 {
                        target.publish(&generation(number, &["192.0.2.7"])).await.expect(kind);
                    }
                };
                Handle::current().block_on(publications);
            });
            done.store(true, Ordering::Relaxed);
            assert!(readers.join().expect("every reader found the map") > 5, "{kind}");
        });
    }
}

#[tokio::test]
async fn failed_replacement_of_the_source_is_reported() {
    let lab = Lab::new();
    let mut target = lab.target("hash").await;
    fs::create_dir(lab.path()).expect("something in the way");
    let failure = target.publish(&generation(1, &["192.0.2.7"])).await.expect_err("a directory");
    assert_eq!(failure.step, Step::InstallSource);
    assert!(failure.to_string().contains("was published, but its source file"), "{failure}");
    assert_eq!(lab.look_up("hash", "192.0.2.7").as_deref(), Some("OK"));
    fs::remove_dir(lab.path()).expect("removed");
    target.publish(&generation(1, &["192.0.2.7"])).await.expect("repaired");
    assert_eq!(lab.files(), ["clients", "clients.db"]);
}

/// Postfix 3.11 may build lmdb for hash; `postmap -q hash:` then reads that too.
#[tokio::test]
async fn finds_the_file_of_a_redirected_type() {
    let mut lab = Lab::new();
    lab.fake_postmap(
        r#"for word; do shift; case $word in hash:*) word=lmdb:${word#hash:};; esac; set -- "$@" "$word"; done
exec $REAL "$@""#,
    );
    lab.target("hash").await.publish(&generation(1, &["192.0.2.7"])).await.expect("published");
    assert_eq!(lab.files(), ["clients", "clients.lmdb"]);
    assert_eq!(lab.look_up("lmdb", "192.0.2.7").as_deref(), Some("OK"));
}

#[tokio::test]
async fn full_disk_keeps_the_old_map() {
    // 4000 addresses: the source needs 60 KiB, and each compiled file more than 100 KiB.
    for (kind, left, step, why) in [
        ("hash", 0, Step::Write, "No space"),
        ("hash", 100, Step::Build, "No space"),
        ("btree", 100, Step::Build, "No space"),
        ("cdb", 100, Step::Build, "No space"),
        // postmap exits with status 0 here, and the map is empty.
        ("lmdb", 100, Step::Check, "it lacks the entry _pbs_generation_"),
    ] {
        let lab = Lab::new();
        let disk = SmallDisk::mount(lab.dir.path().join("map"));
        let mut target = lab.target(kind).await;
        target.publish(&generation(1, &["192.0.2.7"])).await.expect(kind);
        disk.fill(left);
        let outcome = target.publish(&large_generation(2, 4000)).await;
        let failure = outcome.expect_err(&format!("{kind} with {left} KiB"));
        assert_eq!(failure.step, step, "{failure}");
        assert!(failure.why.contains(why), "{failure}");
        assert_eq!(lab.look_up(kind, "192.0.2.7").as_deref(), Some("OK"), "{failure}");
        assert_eq!(lab.files().len(), 3, "{failure}: {:?}", lab.files());

        disk.clear();
        target.publish(&large_generation(3, 4000)).await.expect("there is room again");
        assert_eq!(lab.look_up(kind, "10.0.0.9").as_deref(), Some("OK"), "{kind}");
        assert_eq!(lab.look_up(kind, "192.0.2.7"), None, "{kind}");
    }
}

#[tokio::test]
async fn read_only_directory_is_refused() {
    let lab = Lab::new();
    let disk = SmallDisk::mount(lab.dir.path().join("map"));
    disk.forbid_writing();
    let failure = lab.prepare("hash").await.expect_err("read-only").to_string();
    assert!(failure.contains("Read-only file system") && failure.contains("hint: "), "{failure}");
}
