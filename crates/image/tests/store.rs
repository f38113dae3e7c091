//! The store: what comes in is what goes out, what is removed is gone, and what is hostile stays outside.

mod common;

use common::{Store, Tar};
use image::{Change, Commit, Filter, Images, Import, Kind, Loaded, Removed, Use};
use model::image::ImageConfig;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use tar::EntryType;

fn nobody(_: &model::image::ImageId) -> Vec<Use> {
    Vec::new()
}

fn filters(list: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in list {
        map.entry((*key).to_owned()).or_default().push((*value).to_owned());
    }
    map
}

#[test]
fn an_imported_image_is_found_by_name_and_id() {
    let store = Store::new();
    let import = Import {
        name: Some("me/app:1".to_owned()),
        message: "made".to_owned(),
        changes: vec!["CMD [\"/x\"]".to_owned(), "ENV a=b".to_owned()],
        platform: None,
    };
    let id = store.import(&Tar::new().file("x", "hello").done()[..], import).unwrap();
    let short = id.short().to_owned();
    let digest = id.to_string();
    for name in ["me/app:1", "docker.io/me/app:1", &short, &short[..5], id.hex(), &digest] {
        assert_eq!(store.get(name).unwrap().id, id, "{name}");
    }
    let image = store.get("me/app:1").unwrap();
    assert_eq!(image.repo_tags, ["me/app:1"]);
    assert_eq!(image.size, 5);
    assert_eq!(image.configuration.config.cmd.as_deref().unwrap(), ["/x"]);
    assert_eq!(image.configuration.config.env.as_deref().unwrap(), ["a=b"]);
    assert_eq!(image.configuration.rootfs.diff_ids.len(), 1);
    let history = store.history("me/app:1").unwrap();
    assert_eq!((history[0].id.as_str(), history[0].comment.as_str(), history[0].size), (digest.as_str(), "made", 5));

    for (name, message) in [
        ("nope", "No such image: nope:latest"),
        ("me/app", "No such image: me/app:latest"),
        ("0000000", "No such image: 0000000:latest"),
    ] {
        let error = store.get(name).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind()), (message, Kind::NotFound));
    }
    assert_eq!(
        store.get("No").unwrap_err().to_string(),
        "invalid reference format: repository name (library/No) must be lowercase"
    );
}

#[test]
fn what_is_saved_loads_as_the_same_images() {
    let one = Store::new();
    one.made("a:1", Tar::new().file("f", "1").done());
    one.made("b:2", Tar::new().file("g", "2").file("long/".repeat(15).as_str(), "").done());
    one.tag("a:1", "a:other").unwrap();
    one.tag("a:1", "reg.example:5000/x/y:z").unwrap();
    let unnamed = one.made("gone", Tar::new().file("h", "3").done());
    let mut archive = Vec::new();
    let names = ["a", "b:2", "reg.example:5000/x/y:z", unnamed.short()].map(str::to_owned);
    one.save(&names, &mut archive).unwrap();

    let gzipped = {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &archive).unwrap();
        gzip.finish().unwrap()
    };
    let zstd = zstd::encode_all(&archive[..], 1).unwrap();
    for archive in [archive, gzipped, zstd] {
        let two = Store::new();
        let loaded: Vec<String> = two.load(&archive[..], None).unwrap().iter().map(Loaded::to_string).collect();
        let expected = [
            "Loaded image: a:1".to_owned(),
            "Loaded image: a:other".to_owned(),
            "Loaded image: reg.example:5000/x/y:z".to_owned(),
            "Loaded image: b:2".to_owned(),
            format!("Loaded image ID: {unnamed}"),
        ];
        assert_eq!(loaded, expected);
        for name in ["a:1", "a:other", "b:2", unnamed.as_str()] {
            assert_eq!(two.get(name).unwrap().id, one.get(name).unwrap().id);
        }
        // and once more: nothing is doubled
        wait_for(|| two.pieces()["tmp"] == 0);
        let pieces = two.pieces();
        two.load(&archive[..], None).unwrap();
        wait_for(|| two.pieces() == pieces);
    }
}

#[test]
fn an_oci_layout_loads_too() {
    let one = Store::new();
    let id = one.made("a:1", Tar::new().file("f", "1").done());
    let mut archive = Vec::new();
    one.save(&["a:1".to_owned()], &mut archive).unwrap();
    // without the docker-archive part it is a plain layout
    let mut layout = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().into_owned();
        if !matches!(name.to_str().unwrap(), "manifest.json" | "repositories") {
            let mut header = entry.header().clone();
            layout.append_data(&mut header, name, &mut entry).unwrap();
        }
    }
    let two = Store::new();
    let loaded = two.load(&layout.into_inner().unwrap()[..], None).unwrap();
    assert_eq!(loaded[0].to_string(), "Loaded image: a:1");
    assert_eq!(two.get("a:1").unwrap().id, id);
}

#[test]
fn a_failed_load_leaves_nothing() {
    let one = Store::new();
    one.made("a:1", Tar::new().file("f", "first").done());
    one.made("b:1", Tar::new().file("g", "second").done());
    let mut archive = Vec::new();
    one.save(&["a:1".to_owned(), "b:1".to_owned()], &mut archive).unwrap();
    let two = Store::new();
    // what was moved to `tmp` is deleted by a thread
    wait_for(|| two.pieces()["tmp"] == 0);
    let empty = two.pieces();
    // the second image's layer says something else than its digest
    let at = archive.windows(6).position(|w| w == b"second").unwrap();
    let mut spoilt = archive.clone();
    spoilt[at..at + 6].copy_from_slice(b"sEcond");
    let message = two.load(&spoilt[..], None).unwrap_err().to_string();
    assert!(message.contains("does not have the digest"), "{message}");
    let truncated = &archive[..archive.len() / 2];
    assert!(two.load(truncated, None).is_err());
    assert_eq!(two.load(&b"no archive at all"[..], None).unwrap_err().kind(), Kind::Invalid);
    assert!(two.load(&Tar::new().file("x", "y").done()[..], None).is_err());
    assert!(two.list(&Filter { all: true, ..Filter::default() }).is_empty());
    wait_for(|| two.pieces() == empty);
}

fn wait_for(condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "it never came");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn layers_are_unpacked_as_overlayfs_wants_them() {
    let store = Store::new();
    let tar = Tar::new()
        .file_of("owned", b"x", 0o4755, 1000, 3_000_000)
        .extended(&[("SCHILY.xattr.user.note", b"kept"), ("SCHILY.xattr.trusted.overlay.redirect", b"/etc")])
        .file("attributes", "y")
        .directory("d/")
        .file("d/.wh..wh..opq", "")
        .file(".wh.gone", "")
        .file("stays", "here")
        .file(".wh.stays", "")
        .file(".wh.replaced", "")
        .directory("replaced/")
        .raw(
            {
                let mut header = Tar::header(EntryType::Regular, 0);
                let old = header.as_old_mut();
                (old.uid, old.gid, old.mtime, old.mode) = ([0; 8], [b' '; 8], [0; 12], [0; 8]);
                header
            },
            "blank",
            &[],
        )
        .link("hard", "stays")
        .symlink("soft", "/absolute/../target")
        .raw(Tar::header(EntryType::Fifo, 0), "fifo", &[])
        .raw(
            {
                let mut header = Tar::header(EntryType::Char, 0);
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
                header
            },
            "null",
            &[],
        )
        .file(&format!("{}file", "deep/".repeat(10)), "z")
        .done();
    let id = store.made("x", tar);
    let layer = store.by_id(&id).unwrap().layer_paths[0].clone();
    let meta = |name: &str| fs::symlink_metadata(layer.join(name)).unwrap();
    let owned = meta("owned");
    assert_eq!((owned.uid(), owned.gid(), owned.mode() & 0o7777), (1000, 3_000_000, 0o4755));
    assert_eq!(owned.mtime(), 1_700_000_000);
    assert_eq!(meta("d").mtime(), 1_700_000_000);
    assert_eq!((meta("blank").uid(), meta("blank").mode() & 0o7777, meta("blank").mtime()), (0, 0, 0));
    let dir = kernel::tree::Dir::open(&layer).unwrap();
    let attributes = dir.attributes("attributes".as_ref()).unwrap();
    assert_eq!(attributes, [("user.note".into(), b"kept".to_vec())], "overlayfs's own never come from an archive");
    for (name, opaque) in [("d", true), ("replaced", true), ("deep", false)] {
        assert_eq!(dir.is_opaque(name.as_ref()).unwrap(), opaque, "{name}");
    }
    assert!(dir.facts("gone".as_ref()).unwrap().unwrap().is_whiteout());
    assert_eq!(fs::read_to_string(layer.join("stays")).unwrap(), "here", "a mark speaks of lower layers only");
    assert_eq!(meta("hard").ino(), meta("stays").ino());
    assert_eq!(fs::read_link(layer.join("soft")).unwrap(), Path::new("/absolute/../target"));
    assert!(meta("fifo").file_type().is_fifo());
    assert_eq!(meta("null").rdev(), 0x103);
    assert!(!layer.join(".wh.gone").exists());
    assert_eq!(meta(&format!("{}file", "deep/".repeat(10))).len(), 1);
    assert_eq!(fs::metadata(store.root().join("layers")).unwrap().mode() & 0o777, 0o700, "not for others on the host");
}

#[test]
fn an_archive_cannot_write_outside() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap().to_owned();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    let up = "../".repeat(20);
    let to_outside = format!("{up}{}", &target[1..]);
    let absolute = Tar::new().symlink("l", &target).file("l/file", "x");
    let relative = Tar::new().symlink("l", &to_outside).file("l/file", "x");
    let refused = [
        ("dots", Tar::new().file("../evil", "x")),
        ("inner dots", Tar::new().directory("a/").file("a/../../evil", "x")),
        ("hard link out", Tar::new().link("l", &to_outside)),
        ("hard link by dots", Tar::new().link("l", "../../evil")),
        ("hard link to nothing", Tar::new().link("l", "nothing")),
        ("hard link through a symlink", Tar::new().symlink("s", &target).link("l", "s/secret")),
        ("a file as a directory", Tar::new().file("f", "").file("f/x", "")),
    ];
    for (what, tar) in refused {
        let store = Store::new();
        let error = store.import(&tar.done()[..], Import::default()).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{what}: {}", error.chain());
        assert!(store.list(&Filter { all: true, ..Filter::default() }).is_empty());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{what}");
        assert!(!store.root().parent().unwrap().join("evil").exists(), "{what}");
    }
    // where a link leads is inside, also if nothing is there yet
    for tar in [absolute, relative] {
        let store = Store::new();
        let id = store.made("x", tar.done());
        let layer = store.by_id(&id).unwrap().layer_paths[0].clone();
        assert_eq!(fs::read_to_string(layer.join(&target[1..]).join("file")).unwrap(), "x");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
    // what an absolute link names is looked for inside
    let store = Store::new();
    let tar = Tar::new().directory("etc/").symlink("l", "/etc").file("l/file", "x").file("/rooted", "y").done();
    let id = store.made("x", tar);
    let layer = store.by_id(&id).unwrap().layer_paths[0].clone();
    assert!(layer.join("etc/file").exists() && layer.join("rooted").exists());
    // an entry over a symlink replaces the symlink
    let tar = Tar::new().symlink("l", &format!("{target}/secret")).file("l", "new").done();
    store.made("y", tar);
    assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");
}

#[test]
fn a_manifest_cannot_name_paths() {
    let store = Store::new();
    let image = |layers: &str, diff: &str| {
        let config =
            format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff}"]}}}}"#);
        Tar::new()
            .file("c.json", &config)
            .file("l.tar", "")
            .file("manifest.json", &format!(r#"[{{"Config":"c.json","Layers":{layers}}}]"#))
            .done()
    };
    for (layers, diff) in [
        (r#"["../../../etc/passwd"]"#, "sha256:../../x"),
        (r#"["l.tar"]"#, "sha256:../../../../evil"),
        (r#"["l.tar","l.tar"]"#, "x"),
        (r#"["missing"]"#, "x"),
    ] {
        assert_eq!(store.load(&image(layers, diff)[..], None).unwrap_err().kind(), Kind::Invalid, "{layers} {diff}");
    }
}

#[test]
fn lists_are_filtered_as_docker_does() {
    let store = Store::new();
    let import = |name: &str, change: &str, content: &str| {
        let import = Import { name: Some(name.into()), changes: vec![change.into()], ..Import::default() };
        store.import(&Tar::new().file("f", content).done()[..], import).unwrap()
    };
    let a = import("a:1", "LABEL kind=x", "1");
    let b = import("b/c:2", "LABEL kind=y", "2");
    import("d:3", "LABEL other=z", "3");
    let dangling = import("d:4", "ENV x=y", "4");
    import("d:4", "ENV x=z", "5");
    let check = |list: &[(&str, &str)], expected: &[&str]| {
        let filter = Filter::read(&store, &filters(list), false).unwrap();
        let mut names: Vec<String> = store
            .list(&filter)
            .into_iter()
            .map(|i| i.repo_tags.first().cloned().unwrap_or_else(|| format!("<none>{}", (i.id == dangling) as u8)))
            .collect();
        names.sort();
        assert_eq!(names, expected, "{list:?}");
    };
    check(&[], &["<none>1", "a:1", "b/c:2", "d:3", "d:4"]);
    check(&[("dangling", "true")], &["<none>1"]);
    check(&[("dangling", "false")], &["a:1", "b/c:2", "d:3", "d:4"]);
    check(&[("label", "kind")], &["a:1", "b/c:2"]);
    check(&[("label", "kind=x")], &["a:1"]);
    check(&[("reference", "d")], &["d:3", "d:4"]);
    check(&[("reference", "d:*")], &["d:3", "d:4"]);
    check(&[("reference", "b/*")], &["b/c:2"]);
    check(&[("reference", "*")], &["a:1", "d:3", "d:4"]);
    check(&[("since", "b/c:2")], &["<none>1", "d:3", "d:4"]);
    check(&[("before", b.as_str())], &["a:1"]);
    check(&[("until", "1h")], &[]);
    let wrong = Filter::read(&store, &filters(&[("colour", "red")]), false).unwrap_err();
    assert_eq!(wrong.to_string(), "invalid filter 'colour=red'");
    assert_eq!(store.list(&Filter::default()).last().unwrap().id, a, "the newest comes first");
}

#[test]
fn removing_follows_dockers_rules() {
    let untagged = |name: &str| Removed::Untagged(name.to_owned());
    let deleted = |id: &str| Removed::Deleted(id.to_owned());
    let store = Store::new();
    let id = store.made("a:1", Tar::new().file("f", "1").done());
    store.tag("a:1", "a:2").unwrap();
    store.tag("a:1", "b:1").unwrap();
    let layer = store.get("a:1").unwrap().configuration.rootfs.diff_ids[0].clone();
    let stopped = |_: &model::image::ImageId| vec![Use { container: "0123456789ab".into(), running: false }];
    let running = |_: &model::image::ImageId| vec![Use { container: "0123456789ab".into(), running: true }];

    assert_eq!(store.remove("a:2", false, false, stopped).unwrap(), [untagged("a:2")], "it has other names");
    let error = store.remove(id.short(), false, false, nobody).unwrap_err();
    let short = id.short();
    assert_eq!(
        error.chain(),
        format!("conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories")
    );
    assert_eq!(error.kind(), Kind::Conflict);
    store.remove("b:1", false, false, nobody).unwrap();
    let error = store.remove("a:1", false, false, stopped).unwrap_err();
    assert_eq!(
        error.chain(),
        format!(
            "conflict: unable to remove repository reference \"a:1\" (must force) - container 0123456789ab is using \
             its referenced image {short}"
        )
    );
    let error = store.remove(short, true, false, running).unwrap_err();
    assert_eq!(
        error.chain(),
        format!(
            "conflict: unable to delete {short} (cannot be forced) - image is being used by running container \
             0123456789ab"
        )
    );
    let error = store.remove(short, false, false, stopped).unwrap_err();
    assert_eq!(
        error.chain(),
        format!(
            "conflict: unable to delete {short} (must be forced) - image is being used by stopped container 0123456789ab"
        )
    );
    assert_eq!(store.get("a:1").unwrap().repo_tags, ["a:1"], "a refusal changes nothing");
    assert_eq!(
        store.remove("a:1", true, false, running).unwrap(),
        [untagged("a:1")],
        "the image stays under its container"
    );
    let removed = store.remove(short, true, false, stopped).unwrap();
    assert_eq!(removed, [deleted(id.as_str()), deleted(&layer)]);
    assert!(store.list(&Filter { all: true, ..Filter::default() }).is_empty());
    wait_for(|| store.pieces().values().all(|&n| n == 0));
    assert_eq!(store.remove("a:1", false, false, nobody).unwrap_err().to_string(), "No such image: a:1");
}

#[test]
fn pruning_takes_what_nobody_uses() {
    let store = Store::new();
    let used = store.made("used", Tar::new().file("f", "11").done());
    store.made("unused", Tar::new().file("f", "222").done());
    store.made("moved", Tar::new().file("f", "3333").done());
    store.made("moved", Tar::new().file("f", "44444").done());
    let in_use = |id: &model::image::ImageId| match *id == used {
        true => vec![Use { container: "c".into(), running: false }],
        false => Vec::new(),
    };
    let pruned = store.prune(false, &Filter::default(), in_use).unwrap();
    assert_eq!((pruned.reclaimed, pruned.removed.len()), (4, 2));
    let pruned = store.prune(true, &Filter::default(), in_use).unwrap();
    assert_eq!(pruned.reclaimed, 8);
    let left: Vec<_> = store.list(&Filter::default()).into_iter().flat_map(|i| i.repo_tags).collect();
    assert_eq!(left, ["used:latest"]);
}

#[test]
fn the_store_survives_a_restart_and_sweeps_leftovers() {
    let store = Store::new();
    let id = store.made("a:1", Tar::new().file("f", "1").done());
    fs::create_dir_all(store.root().join("layers/0000/x")).unwrap();
    fs::create_dir_all(store.root().join("points/0000/x")).unwrap();
    fs::write(store.root().join("blobs/sha256/0000"), "x").unwrap();
    fs::create_dir_all(store.root().join("tmp/17/half")).unwrap();
    // a crash while the index was written
    fs::write(store.root().join("index.new"), "{\"ver").unwrap();
    let store = store.reopen();
    assert_eq!(store.get("a:1").unwrap().id, id);
    wait_for(|| {
        store.pieces() == BTreeMap::from([("layers".into(), 1), ("blobs/sha256".into(), 2), ("tmp".into(), 0)])
    });
    assert!(!store.root().join("points/0000").exists());
    // a layer that is gone takes its image with it, and nothing else
    let other = store.made("b:1", Tar::new().file("f", "2").done());
    fs::remove_dir_all(&store.by_id(&id).unwrap().layer_paths[0]).unwrap();
    let store = store.reopen();
    assert!(store.get("a:1").is_err());
    assert_eq!(store.get("b:1").unwrap().id, other);
    // a newer release's store is not touched
    let index = store.root().join("index.json");
    fs::write(&index, r#"{"version": 99, "pictures": []}"#).unwrap();
    let error = Images::open(store.root()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("newer release"), "{error}");
    assert!(fs::read_to_string(&index).unwrap().contains("pictures"));
}

#[test]
fn files_are_read_through_the_layers_as_overlayfs_shows_them() {
    let store = Store::new();
    let base = store.made(
        "base",
        Tar::new()
            .directory("etc/")
            .file("etc/passwd", "below")
            .file("etc/hidden", "x")
            .file("etc/only", "below")
            .directory("opaque/")
            .file("opaque/old", "x")
            .symlink("link", "/etc/passwd")
            .symlink("etc/up", "../../../../etc/only")
            .symlink("loop", "loop")
            .symlink("host", "/proc/self/environ")
            .done(),
    );
    let lower = store.prepare("c1", &base, false).unwrap();
    let upper = Dirs(&lower.upper);
    upper.write("etc/passwd", "above");
    let dir = kernel::tree::Dir::open(&lower.upper).unwrap();
    dir.child("etc".as_ref()).unwrap().make_whiteout("hidden".as_ref()).unwrap();
    upper.write("opaque/new", "y");
    dir.set_opaque("opaque".as_ref()).unwrap();
    let read = |path: &str| store.read_file(&lower, path, 100).unwrap().map(|b| String::from_utf8(b).unwrap());
    for (path, expected) in [
        ("/etc/passwd", Some("above")),
        ("etc/passwd", Some("above")),
        ("/link", Some("above")),
        ("/etc/up", Some("below")),
        ("/etc/../../etc/only", Some("below")),
        ("/etc/hidden", None),
        ("/opaque/old", None),
        ("/opaque/new", Some("y")),
        ("/etc/passwd/x", None),
        ("/host", None),
        ("/none", None),
    ] {
        assert_eq!(read(path).as_deref(), expected, "{path}");
    }
    assert!(store.read_file(&lower, "/loop", 100).is_err());
    assert!(store.read_file(&lower, "/etc", 100).is_err());
    assert!(store.read_file(&lower, "/etc/passwd", 3).is_err());
    store.discard("c1").unwrap();
    store.discard("c1").unwrap();
    assert!(store.prepare("../x", &base, false).is_err());
}

struct Dirs<'a>(&'a Path);
impl Dirs<'_> {
    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[test]
fn a_containers_changes_are_listed_measured_and_committed() {
    let store = Store::new();
    let base = store.made("base", Tar::new().directory("d/").file("d/a", "1").file("d/b", "2").file("c", "3").done());
    let rootfs = store.prepare("c1", &base, false).unwrap();
    let mounted = mount(&rootfs);
    let d = mounted.child("d".as_ref()).unwrap();
    d.remove("a".as_ref()).unwrap();
    std::io::Write::write_all(&mut d.make_file("new".as_ref(), 0o600).unwrap(), b"12345").unwrap();
    d.set_owner("new".as_ref(), 7, 8).unwrap();
    d.set_attribute("new".as_ref(), "user.k".as_ref(), b"v").unwrap();
    mounted.remove("c".as_ref()).unwrap();
    mounted.make_directory("c".as_ref(), 0o700).unwrap();
    drop((d, mounted));
    let changes = store.changes(&rootfs).unwrap();
    let changes: Vec<(Change, &str)> = changes.iter().map(|(c, p)| (*c, p.as_str())).collect();
    assert_eq!(
        changes,
        [(Change::Modified, "/c"), (Change::Modified, "/d"), (Change::Deleted, "/d/a"), (Change::Added, "/d/new"),]
    );
    assert_eq!(store.changes_size(&rootfs).unwrap(), 5);

    let commit = Commit {
        config: ImageConfig { cmd: Some(vec!["x".into()]), ..ImageConfig::default() },
        changes: vec!["ENV k=v".into()],
        author: "me".into(),
        message: "why".into(),
        created_by: "sh".into(),
    };
    let id = store.commit("c1", &rootfs, Some(&base), commit).unwrap();
    let image = store.by_id(&id).unwrap();
    assert_eq!(image.parent.as_ref(), Some(&base));
    assert_eq!(image.configuration.history.len(), 2);
    assert_eq!((image.configuration.author.as_str(), image.configuration.comment.as_str()), ("me", "why"));
    let second = store.prepare("c2", &id, true).unwrap();
    let mounted = mount(&second);
    let mount_points = [".dockerenv", "c", "d", "dev", "etc", "proc", "sys"];
    assert_eq!(mounted.names().unwrap(), mount_points);
    let d = mounted.child("d".as_ref()).unwrap();
    assert_eq!(d.names().unwrap(), ["b", "new"]);
    let facts = d.facts("new".as_ref()).unwrap().unwrap();
    assert_eq!((facts.uid, facts.gid, facts.mode, facts.size), (7, 8, 0o600, 5));
    assert_eq!(d.attribute("new".as_ref(), "user.k").unwrap().unwrap(), b"v");
    assert_eq!(mounted.facts("c".as_ref()).unwrap().unwrap().mode, 0o700);
    drop((d, mounted));
    // after a volatile mount the same container can be mounted again
    let again = store.prepare("c2", &id, true).unwrap();
    mount(&again);

    let error = store.remove(base.short(), true, false, nobody).unwrap_err();
    assert!(error.chain().ends_with("(cannot be forced) - image has dependent child images"), "{error}");
    let removed = store.remove("base", false, false, nobody).unwrap();
    assert_eq!(removed, [Removed::Untagged("base:latest".into())], "its child keeps it");
    store.discard("c1").unwrap();
    let removed = store.remove(id.short(), true, false, nobody).unwrap();
    let deleted = removed.iter().filter(|r| matches!(r, Removed::Deleted(d) if d == base.as_str())).count();
    assert_eq!(deleted, 1, "a parent without a name goes with its last child");
}

fn mount(rootfs: &model::rootfs::Rootfs) -> kernel::tree::Dir {
    let changes = kernel::overlay::Changes { upper: &rootfs.upper, work: &rootfs.work, volatile: rootfs.volatile };
    let mount = kernel::overlay::mount_detached(&rootfs.lower, Some(changes)).unwrap();
    kernel::tree::Dir::of_mount(&mount).unwrap()
}

#[test]
fn a_containers_layers_outlive_its_image() {
    let store = Store::new();
    let id = store.made("a", Tar::new().file("f", "1").done());
    let rootfs = store.prepare("c1", &id, false).unwrap();
    store.remove("a", true, false, nobody).unwrap();
    assert!(rootfs.lower[1].join("f").exists());
    let store = store.reopen();
    assert_eq!(store.rootfs("c1", false).unwrap(), rootfs);
    assert!(rootfs.lower[1].join("f").exists(), "over a restart too");
    store.discard("c1").unwrap();
    assert!(!rootfs.lower[1].exists() && !rootfs.lower[0].exists());
    assert!(store.prepare("c2", &id, false).is_err());
}

#[test]
fn mount_points_are_there_and_are_nobodys_change() {
    let store = Store::new();
    let tar =
        Tar::new().directory("etc/").file("etc/hosts", "own").symlink("sys", "nowhere").file("proc", "odd").done();
    let id = store.made("a", tar);
    let rootfs = store.prepare("c", &id, false).unwrap();
    let mounted = mount(&rootfs);
    for path in ["/dev/pts", "/dev/shm", "/etc/resolv.conf", "/etc/hostname", "/.dockerenv"] {
        assert!(mounted.facts_inside(Path::new(path)).is_ok(), "{path}");
    }
    drop(mounted);
    assert_eq!(store.read_file(&rootfs, "/etc/hosts", 10).unwrap().unwrap(), b"own");
    assert_eq!(store.changes(&rootfs).unwrap(), []);
    let committed = store.commit("c", &rootfs, Some(&id), Commit::default()).unwrap();
    assert!(!store.by_id(&committed).unwrap().layer_paths[0].join("etc").exists());
    // the next container of the image shares them, and so does the next daemon's
    let second = store.prepare("c2", &id, false).unwrap();
    assert_eq!(second.lower, rootfs.lower);
    let store = store.reopen();
    let mut containers = store.containers().unwrap();
    containers.sort();
    assert_eq!(containers, ["c", "c2"]);
    assert_eq!(store.rootfs("c", false).unwrap(), rootfs);
    assert!(rootfs.lower[0].join("dev/pts").exists());
}

#[test]
fn a_new_volume_gets_what_the_image_has_there() {
    let store = Store::new();
    let mut header = Tar::header(EntryType::Directory, 0);
    header.set_mode(0o1777);
    header.set_uid(5);
    let id = store.made(
        "a",
        Tar::new()
            .raw(header, "data/", &[])
            .file_of("data/f", b"x", 0o640, 6, 7)
            .link("data/g", "data/f")
            .symlink("data/l", "f")
            .symlink("way", "/data")
            .file("file", "")
            .done(),
    );
    let rootfs = store.prepare("c", &id, false).unwrap();
    let volume = tempfile::tempdir().unwrap();
    assert!(store.copy_up(&rootfs, "/way", volume.path()).unwrap());
    let meta = |name: &str| fs::symlink_metadata(volume.path().join(name)).unwrap();
    assert_eq!((meta("").mode() & 0o7777, meta("").uid()), (0o1777, 5));
    assert_eq!((meta("f").mode() & 0o7777, meta("f").uid(), meta("f").gid()), (0o640, 6, 7));
    assert_eq!(meta("f").ino(), meta("g").ino());
    assert!(meta("l").file_type().is_symlink());
    assert!(!store.copy_up(&rootfs, "/none", volume.path()).unwrap());
    assert!(!store.copy_up(&rootfs, "/file", volume.path()).unwrap());
}

#[test]
fn a_full_disk_leaves_the_store_as_it_was() {
    let store = Store::new();
    let small = tempfile::tempdir().unwrap();
    #[allow(deprecated)] // safe for a namespace of mounts: this thread and those it starts see one more
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
    let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("small", small.path(), "tmpfs", flags, c"size=2m").unwrap();
    let full = Images::open(&small.path().join("images")).unwrap();
    let import = |store: &Images, name: &str, size: usize| {
        let noise: Vec<u8> =
            (0..size as u64).map(|n| (n.wrapping_mul(n).wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
        let tar = Tar::new().file_of("f", &noise, 0o644, 0, 0).done();
        store.import(&tar[..], Import { name: Some(name.into()), ..Import::default() })
    };
    let fits = import(&full, "fits", 100_000).unwrap();
    import(&store, "big", 4 << 20).unwrap();
    let mut archive = Vec::new();
    store.save(&["big".to_owned()], &mut archive).unwrap();
    for error in [import(&full, "big", 4 << 20).unwrap_err(), full.load(&archive[..], None).unwrap_err()] {
        assert!(error.chain().ends_with("No space left on device (os error 28)"), "{}", error.chain());
        assert_eq!(error.kind(), Kind::Internal);
    }
    drop(full);
    let full = Images::open(&small.path().join("images")).unwrap();
    assert_eq!(full.list(&Filter { all: true, ..Filter::default() }).len(), 1);
    assert_eq!(full.get("fits").unwrap().id, fits);
    wait_for(|| import(&full, "again", 200_000).is_ok());
}
