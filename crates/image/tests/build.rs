//! The builder, with a runner that changes root into the mounted layers: what is built, what is said, what is cached.

mod common;

use common::{Store, Tar, busybox};
use image::build::{BoxFuture, BuildEvent, BuildOptions, Context, Output, RunStep, Runner, Written};
use image::{Image, Kind, Progress};
use model::image::{ImageId, Platform};
use model::reference::Reference;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Runs steps by chroot, and remembers them.
#[derive(Default)]
struct Chroot {
    steps: Mutex<Vec<RunStep>>,
    pulled: Mutex<Vec<String>>,
    /// What `pull` brings.
    remote: Mutex<BTreeMap<String, Vec<u8>>>,
    store: Mutex<Option<image::Images>>,
}

impl Runner for Chroot {
    fn secret<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, String>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn run<'a>(&'a self, step: RunStep, output: Output) -> BoxFuture<'a, Result<i32, String>> {
        self.steps.lock().unwrap().push(step.clone());
        Box::pin(async move {
            let rootfs = &step.rootfs;
            let changes = kernel::overlay::Changes { upper: &rootfs.upper, work: &rootfs.work, volatile: true };
            let mount = kernel::overlay::mount_detached(&rootfs.lower, Some(changes)).map_err(|e| e.to_string())?;
            let root = format!("/proc/{}/fd/{}", std::process::id(), mount.as_raw_fd());
            let ran = tokio::process::Command::new("/bin/busybox")
                .args(["chroot", &root, "/bin/busybox", "sh", "-c", "cd \"$0\" && exec \"$@\" 2>&1", &step.cwd])
                .args(&step.args)
                .env_clear()
                .envs(step.env.iter().filter_map(|v| v.split_once('=')))
                .output()
                .await
                .map_err(|e| e.to_string())?;
            output(Written::Output, &ran.stdout);
            output(Written::Error, &ran.stderr);
            Ok(ran.status.code().unwrap_or(-1))
        })
    }

    fn pull<'a>(
        &'a self,
        reference: &'a Reference,
        _platform: Option<&'a Platform>,
        progress: Arc<dyn Fn(Progress) + Send + Sync>,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let name = reference.familiar();
            self.pulled.lock().unwrap().push(name.clone());
            progress(Progress { status: format!("Pulling {name}"), ..Progress::default() });
            let Some(tar) = self.remote.lock().unwrap().get(&name).cloned() else {
                return Err(format!("pull access denied for {name}"));
            };
            let import = image::Import { name: Some(name), ..image::Import::default() };
            self.store.lock().unwrap().as_ref().unwrap().import(&tar[..], import).map_err(|e| e.to_string())?;
            Ok(())
        })
    }
}

struct World {
    store: Store,
    runner: Chroot,
    files: Vec<(String, Vec<u8>, u32)>,
    options: BuildOptions,
}

/// What a build said and made.
struct Built {
    said: String,
    result: Result<ImageId, image::Error>,
    images: Vec<ImageId>,
}

impl World {
    fn new() -> Self {
        let store = Store::new();
        store.made("busybox", busybox());
        let runner = Chroot::default();
        *runner.store.lock().unwrap() = Some(store.images.clone());
        Self { store, runner, files: Vec::new(), options: BuildOptions::default() }
    }
    fn file(&mut self, name: &str, content: &str) -> &mut Self {
        self.files.retain(|(n, ..)| n != name);
        self.files.push((name.to_owned(), content.as_bytes().to_vec(), 0o644));
        self
    }
    fn context(&self, dockerfile: &str) -> Vec<u8> {
        let mut tar = Tar::new().file("Dockerfile", dockerfile);
        for (name, content, mode) in &self.files {
            tar = tar.file_of(name, content, *mode, 1234, 1234);
        }
        tar.done()
    }
    fn build(&self, dockerfile: &str) -> Built {
        self.build_from(Context::Archive(Box::new(std::io::Cursor::new(self.context(dockerfile)))))
    }
    fn build_from(&self, context: Context) -> Built {
        let said = Arc::new(Mutex::new((String::new(), Vec::new())));
        let events = {
            let said = said.clone();
            Arc::new(move |event| {
                let mut said = said.lock().unwrap();
                match event {
                    BuildEvent::Stream(text) | BuildEvent::Output(_, text) => said.0.push_str(&text),
                    BuildEvent::Progress(line) => said.0.push_str(&format!("{}\n", line.status)),
                    BuildEvent::Image(id) => said.1.push(id),
                    BuildEvent::Begin(_) | BuildEvent::Cached | BuildEvent::End => {}
                }
            })
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // the engine runs it on whichever thread is free
        fn sendable<T: Send>(future: T) -> T {
            future
        }
        let building = sendable(self.store.build(context, self.options.clone(), &self.runner, events));
        let result = runtime.block_on(building);
        let (said, images) = said.lock().unwrap().clone();
        Built { said, result, images }
    }
    fn image(&self, dockerfile: &str) -> Image {
        let built = self.build(dockerfile);
        let id = built.result.unwrap_or_else(|e| panic!("{}\n{}", built.said, e.chain()));
        assert_eq!(built.images.last(), Some(&id));
        self.store.by_id(&id).unwrap()
    }
    fn error(&self, dockerfile: &str) -> String {
        self.build(dockerfile).result.unwrap_err().chain()
    }
    /// A file of an image, with its owner and mode.
    fn read(&self, image: &Image, path: &str) -> Option<(String, String)> {
        let rootfs = self.store.prepare("reader", &image.id, true).unwrap();
        let bytes = self.store.read_file(&rootfs, path, 1 << 20).unwrap();
        let mount = kernel::overlay::mount_detached(
            &rootfs.lower,
            Some(kernel::overlay::Changes { upper: &rootfs.upper, work: &rootfs.work, volatile: true }),
        )
        .unwrap();
        let root = kernel::tree::Dir::of_mount(&mount).unwrap();
        let facts = root.facts_inside(Path::new(path)).ok();
        drop((root, mount));
        self.store.discard("reader").unwrap();
        bytes.map(|b| {
            let facts = facts.unwrap();
            (String::from_utf8(b).unwrap(), format!("{}:{} {:o}", facts.uid, facts.gid, facts.mode))
        })
    }
    fn text(&self, image: &Image, path: &str) -> String {
        self.read(image, path).unwrap_or_else(|| panic!("{path} is not there")).0
    }
    fn runs(&self) -> usize {
        self.runner.steps.lock().unwrap().len()
    }
}

#[test]
fn a_build_says_what_docker_says() {
    let mut world = World::new();
    world.options.tags = vec!["me/app:1".into(), "other".into()];
    let base = world.store.get("busybox").unwrap().id;
    let dockerfile =
        "FROM busybox\nENV greeting=hello\nRUN echo $greeting > /file && echo said\nCMD [\"cat\", \"/file\"]\n";
    let built = world.build(dockerfile);
    let id = built.result.unwrap();
    let image = world.store.get("me/app:1").unwrap();
    assert_eq!(image.id, id);
    assert_eq!(image.repo_tags, ["me/app:1", "other:latest"]);
    assert_eq!(world.text(&image, "/file"), "hello\n");
    let history = world.store.history("me/app:1").unwrap();
    let step = |n: usize| history[n].id.trim_start_matches("sha256:")[..12].to_owned();
    let container = world.runner.steps.lock().unwrap()[0].container.short();
    let expected = format!(
        "Step 1/4 : FROM busybox\n ---> {base}\nStep 2/4 : ENV greeting=hello\n ---> {}\nStep 3/4 : RUN echo $greeting \
         > /file && echo said\n ---> Running in {container}\nsaid\n ---> Removed intermediate container {container}\n \
         ---> {}\nStep 4/4 : CMD [\"cat\", \"/file\"]\n ---> {last}\nSuccessfully built {last}\nSuccessfully tagged \
         me/app:1\nSuccessfully tagged other:latest\n",
        step(2),
        step(1),
        base = base.short(),
        last = id.short(),
    );
    assert_eq!(built.said, expected);
    let created_by: Vec<_> = history.iter().take(3).map(|h| h.created_by.as_str()).collect();
    assert_eq!(
        created_by,
        [
            "/bin/sh -c #(nop)  CMD [\"cat\" \"/file\"]",
            "/bin/sh -c echo $greeting > /file && echo said",
            "/bin/sh -c #(nop)  ENV greeting=hello"
        ]
    );
    // once more: everything is there already
    let again = world.build(dockerfile);
    assert_eq!(again.result.unwrap(), id);
    assert_eq!(again.said.matches(" ---> Using cache\n").count(), 3);
    assert_eq!(world.runs(), 1);
    world.options.no_cache = true;
    assert_ne!(world.build(dockerfile).result.unwrap(), id);
    assert_eq!(world.runs(), 2);
}

#[test]
fn the_cache_survives_a_restart_and_failed_builds() {
    let world = World::new();
    let built = world.build("FROM busybox\nRUN echo a > /a\nRUN false\n");
    let error = built.result.unwrap_err();
    assert_eq!(
        error.to_string(),
        "The command '/bin/sh -c false' returned a non-zero code: 1 (line 3 of the Dockerfile)\n 3 | RUN false\n   |     ^^^^^"
    );
    assert_eq!(error.kind(), Kind::Internal);
    let World { store, .. } = world;
    let store = store.reopen();
    let world = World { store, runner: Chroot::default(), files: vec![], options: BuildOptions::default() };
    world.image("FROM busybox\nRUN echo a > /a\nRUN echo b > /b\n");
    assert_eq!(world.runs(), 1, "the first step was in the cache");
}

#[test]
fn copies_are_cached_by_content() {
    let mut world = World::new();
    world.file("a", "1").file("b", "2");
    let dockerfile = "FROM busybox\nCOPY a /dst/\nRUN cat /dst/a > /seen\n";
    let first = world.image(dockerfile);
    assert_eq!(world.text(&first, "/seen"), "1");
    world.file("b", "changed");
    assert_eq!(world.image(dockerfile).id, first.id, "b is not copied");
    assert_eq!(world.runs(), 1);
    world.file("a", "new");
    let second = world.image(dockerfile);
    assert_eq!(world.text(&second, "/seen"), "new");
    assert_eq!(world.runs(), 2);
    world.file("a", "1");
    assert_eq!(world.image(dockerfile).id, first.id, "the old content is still there");
    world.files[1].2 = 0o755;
    world.files[0].2 = 0o755;
    assert_ne!(world.image(dockerfile).id, first.id, "a mode counts");
    assert!(world.build(dockerfile).said.contains("Using cache"));
}

#[test]
fn build_arguments_count_where_they_are_used() {
    let mut world = World::new();
    let dockerfile = "ARG base=busybox\nFROM $base\nARG who=nobody\nRUN echo $who $http_proxy > /who\n";
    let one = world.image(dockerfile);
    assert_eq!(world.text(&one, "/who"), "nobody\n");
    world.options.build_args.insert("who".into(), Some("me".into()));
    let two = world.image(dockerfile);
    assert_eq!(world.text(&two, "/who"), "me\n");
    assert!(world.store.history(two.id.as_str()).unwrap()[0].created_by.starts_with("|1 who=me /bin/sh -c "));
    assert!(!two.configuration.config.env.as_ref().unwrap().iter().any(|v| v.starts_with("who=")));
    let runs = world.runs();
    world.options.build_args.insert("http_proxy".into(), Some("p".into()));
    assert_eq!(world.image(dockerfile).id, two.id, "a proxy is no reason to run again");
    assert_eq!(world.runs(), runs);
    world.options.build_args.insert("nobody_asked".into(), Some("x".into()));
    let built = world.build(dockerfile);
    assert!(built.said.contains("[Warning] One or more build-args [nobody_asked] were not consumed\n"));
    world.options.build_args.insert("base".into(), Some("none-such".into()));
    assert_eq!(
        world.error(dockerfile),
        "pull access denied for none-such:latest (line 2 of the Dockerfile)\n 2 | FROM $base\n   |      ^^^^^"
    );
    let arch = world.image("FROM busybox\nARG TARGETARCH\nENV arch=$TARGETARCH\nARG arch=arg\nENV seen=$arch\n");
    let env = arch.configuration.config.env.clone().unwrap();
    let host = Platform::host().architecture;
    assert!(env.contains(&format!("arch={host}")) && env.contains(&format!("seen={host}")), "{env:?}");
}

#[test]
fn stages_copy_from_each_other_and_from_images() {
    let mut world = World::new();
    world.store.made("tool", Tar::new().directory("bin/").file_of("bin/t", b"tool", 0o755, 7, 8).done());
    let dockerfile = "FROM busybox AS Build\nRUN mkdir /out && echo x > /out/x && ln -s x /out/link\n\
        FROM scratch\nCOPY --from=build /out /app\nCOPY --from=0 /out/link /followed\nCOPY --from=tool /bin/t /t\n\
        COPY --from=tool --chown=5 /bin/t /mine\nFROM busybox\nRUN false\n";
    let dockerfile = dockerfile.replace("ln -s", "/bin/busybox ln -s");
    world.options.target = Some("1".into());
    let image = world.image(&dockerfile);
    assert_eq!(image.configuration.rootfs.diff_ids.len(), 4);
    assert_eq!(world.text(&image, "/app/x"), "x\n");
    assert_eq!(world.text(&image, "/app/link"), "x\n");
    assert_eq!(world.text(&image, "/followed"), "x\n");
    assert_eq!(world.read(&image, "/t").unwrap(), ("tool".into(), "7:8 755".into()));
    assert_eq!(world.read(&image, "/mine").unwrap().1, "5:5 755");
    assert!(world.read(&image, "/bin/sh").is_none());
    assert_eq!(image.configuration.config.env.as_ref().unwrap().len(), 1, "PATH is set on scratch too");
    let again = world.build(&dockerfile);
    assert_eq!(again.result.unwrap(), image.id);
    for (from, message) in [
        ("7", "invalid from flag value 7: index out of bounds"),
        ("1", "invalid from flag value 1: refers to current build stage"),
    ] {
        world.options.target = None;
        let error = world.error(&format!("FROM busybox\nFROM busybox\nCOPY --from={from} /a /b\n"));
        let line = format!("{message} (line 3 of the Dockerfile)\n 3 | COPY --from={from} /a /b\n");
        assert!(error.starts_with(&line), "{error}");
    }
    world.options.target = Some("nope".into());
    assert_eq!(world.error("FROM busybox"), "target stage \"nope\" could not be found");
}

#[test]
fn copy_puts_things_where_docker_puts_them() {
    let mut world = World::new();
    world
        .file("one.txt", "1")
        .file("two.txt", "2")
        .file("dir/inner/deep.txt", "3")
        .file("dir/other.md", "4")
        .file("dir/README.md", "5")
        .file("secret/key", "6")
        .file("with space", "7")
        .file(".dockerignore", "secret\ndir/*.md\n!dir/README.md\n");
    let image = world.image(
        "FROM busybox\nWORKDIR /srv\nCOPY one.txt renamed\nCOPY *.txt /txt/\nCOPY dir /dir\nCOPY dir/in* sub/\n\
         COPY [\"with space\", \"/a b\"]\nCOPY . /all/\nCOPY --chown=app:staff one.txt /owned\n\
         COPY --chown=app one.txt /by-name\nCOPY --chown=9:10 --chmod=0751 dir /new/dir\nENV d=/env n=one\n\
         COPY ${n}.txt $d/\nADD one.txt two.txt ./\nCOPY --exclude=*.md dir /excluded\n",
    );
    for (path, text, owner) in [
        ("/srv/renamed", "1", "0:0 644"),
        ("/txt/one.txt", "1", "0:0 644"),
        ("/txt/two.txt", "2", "0:0 644"),
        ("/dir/inner/deep.txt", "3", "0:0 644"),
        ("/dir/README.md", "5", "0:0 644"),
        ("/srv/sub/deep.txt", "3", "0:0 644"),
        ("/a b", "7", "0:0 644"),
        ("/all/dir/README.md", "5", "0:0 644"),
        ("/owned", "1", "1001:50 644"),
        ("/by-name", "1", "1001:1002 644"),
        ("/new/dir/inner/deep.txt", "3", "9:10 751"),
        ("/env/one.txt", "1", "0:0 644"),
        ("/srv/one.txt", "1", "0:0 644"),
        ("/srv/two.txt", "2", "0:0 644"),
        ("/excluded/inner/deep.txt", "3", "0:0 644"),
    ] {
        assert_eq!(world.read(&image, path), Some((text.to_owned(), owner.to_owned())), "{path}");
    }
    for path in ["/dir/other.md", "/all/secret/key", "/all/dir/other.md", "/excluded/README.md"] {
        assert_eq!(world.read(&image, path), None, "{path}");
    }
    for (line, message) in [
        (
            "COPY nothing /",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nothing: file does not exist",
        ),
        (
            "COPY secret/key /",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat secret/key: file does not exist",
        ),
        ("COPY ../x /", "COPY failed: forbidden path outside the build context: ../x"),
        ("COPY *.none /", "COPY failed: no source files were specified"),
        (
            "COPY one.txt two.txt /x",
            "When using COPY with more than one source file, the destination must be a directory and end with a /",
        ),
        ("COPY one.txt /etc/passwd/x", "cannot make /etc/passwd in the image: Not a directory (os error 20)"),
        (
            "COPY --chown=nobody one.txt /",
            "unable to convert uid/gid chown string to host mapping: unable to find user nobody: no matching entries in \
             passwd file",
        ),
        (
            "ADD https://x.example/y.git /",
            "ADD https://x.example/y.git: only http and https addresses of files can be fetched; clone a repository in a RUN",
        ),
        ("EXPOSE abc", "invalid containerPort: abc"),
        ("ENV a=${b", "failed to process \"${b\": syntax error: missing '}'"),
    ] {
        let error = world.error(&format!("FROM busybox\n{line}\n"));
        let (said, shown) = error.split_once(" (line 2 of the Dockerfile)\n").unwrap_or((&error, ""));
        assert_eq!(said, message, "{line}");
        let marks = shown.strip_prefix(&format!(" 2 | {line}\n   | ")).unwrap_or_else(|| panic!("{line}: {error}"));
        assert_eq!(marks.trim_start().trim_matches('^'), "", "{line}: {error}");
    }
}

#[test]
fn symlinks_lead_a_copy_nowhere_outside() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let target = outside.path().to_str().unwrap();
    let world = World::new();
    let context = Tar::new()
        .file("Dockerfile", "FROM busybox\nCOPY link /copied\n")
        .symlink("link", &format!("{target}/secret"))
        .done();
    let built = world.build_from(Context::Archive(Box::new(std::io::Cursor::new(context))));
    assert!(built.result.unwrap_err().to_string().contains("file not found in build context"));
    // the other way: into an image whose directory is a link to the host's
    world.store.made("evil", Tar::new().symlink("out", target).symlink("file", &format!("{target}/written")).done());
    let mut world = world;
    world.file("x", "x");
    let image = world.image("FROM evil\nCOPY x /out/x\n");
    assert_eq!(world.text(&image, &format!("{target}/x")), "x", "inside of the image");
    let image = world.image("FROM evil\nCOPY x /file\n");
    assert_eq!(world.text(&image, &format!("{target}/written")), "x", "inside of the image");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn add_unpacks_archives() {
    let mut world = World::new();
    let inner = Tar::new().directory("d/").file_of("d/f", b"inside", 0o600, 11, 12).done();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&inner).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut bzip2 = Vec::new();
    bzip2::read::BzEncoder::new(&inner[..], bzip2::Compression::fast()).read_to_end(&mut bzip2).unwrap();
    for (name, bytes) in [
        ("plain.tar", inner.clone()),
        ("a.tar.gz", gzip),
        ("a.tar.zst", zstd::encode_all(&inner[..], 1).unwrap()),
        ("a.tar.bz2", bzip2),
    ] {
        world.files.push((name.to_owned(), bytes, 0o644));
    }
    world.file("not.tar", "no archive");
    let image = world.image(
        "FROM scratch\nADD plain.tar /plain/\nADD a.tar.gz /gz\nADD a.tar.zst /zst/\nADD --chown=1:2 a.tar.bz2 /bz2/\n\
         ADD not.tar /not/\nCOPY plain.tar /copied/\n",
    );
    for (path, owner) in
        [("/plain/d/f", "11:12 600"), ("/gz/d/f", "11:12 600"), ("/zst/d/f", "11:12 600"), ("/bz2/d/f", "1:2 600")]
    {
        assert_eq!(world.read(&image, path), Some(("inside".into(), owner.into())), "{path}");
    }
    assert_eq!(world.text(&image, "/not/not.tar"), "no archive");
    assert!(world.read(&image, "/copied/plain.tar").is_some());
}

#[test]
fn an_added_archives_symlinks_lead_where_they_would_in_the_image() {
    let mut world = World::new();
    let inner = Tar::new().symlink("etc", "/etc").file_of("etc/new", b"x", 0o600, 0, 0).done();
    world.files.push(("a.tar".to_owned(), inner, 0o644));
    world.file("one", "1");
    let links: Vec<String> = (0..60).map(|n| format!("ln -s /l{} /l{n}", n + 1)).collect();
    let image = world.image(&format!(
        "FROM busybox\nRUN mkdir /etc; {} && mkdir /l60 /srv && ln -s /srv /there\nADD a.tar /there/d/\nCOPY one /l0/\n\
         COPY one /l0/two\n",
        links.join("; ")
    ));
    assert_eq!(world.text(&image, "/etc/new"), "x");
    assert!(world.read(&image, "/srv/d/etc/new").is_some(), "by the link");
    assert!(world.read(&image, "/srv/d/srv").is_none());
    assert_eq!((world.text(&image, "/l60/one"), world.text(&image, "/l60/two")), ("1".into(), "1".into()), "60 links");
}

#[test]
fn add_fetches_files_by_their_address() {
    let archive = Tar::new().file("inside", "x").done();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = [0; 1024];
            let n = stream.read(&mut asked).unwrap();
            let found = asked[..n].starts_with(b"GET /a.tar?x=y ");
            let (status, body) = if found { ("200 OK", archive.as_slice()) } else { ("404 Not Found", &b""[..]) };
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body).unwrap();
        }
    });
    let mut world = World::new();
    world.file(".dockerignore", "*");
    let image =
        world.image(&format!("FROM scratch\nADD http://{address}/a.tar?x=y /d/\nADD http://{address}/a.tar?x=y /e\n"));
    assert_eq!(world.read(&image, "/d/a.tar").unwrap().1, "0:0 600", "what is fetched is not unpacked");
    assert!(world.read(&image, "/e").is_some());
    let again = world.build(&format!("FROM scratch\nADD http://{address}/a.tar?x=y /d/\n"));
    assert!(again.said.contains("Using cache"));
    let error = world.error(&format!("FROM scratch\nADD http://{address}/none /d/\n"));
    let line = format!(
        "http://{address}/none: 404 Not Found (line 2 of the Dockerfile)\n 2 | ADD http://{address}/none /d/\n"
    );
    assert!(error.starts_with(&line), "{error}");
}

#[test]
fn xz_archives_are_unpacked_too() {
    // `d/f` with `inside`, as xz packs it
    let Ok(mut xz) = std::process::Command::new("xz")
        .args(["-c", "-1"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
    else {
        common::lacking("there is no xz to make an archive with");
        return;
    };
    let inner = Tar::new().directory("d/").file("d/f", "inside").done();
    xz.stdin.take().unwrap().write_all(&inner).unwrap();
    let packed = xz.wait_with_output().unwrap().stdout;
    let store = Store::new();
    let id = store.made("x", packed);
    assert!(store.by_id(&id).unwrap().layer_paths[0].join("d/f").exists());
}

#[test]
fn a_configuration_is_what_its_instructions_say() {
    let mut world = World::new();
    world.options.labels = BTreeMap::from([("by".to_owned(), "$caller 'quoted'".to_owned())]);
    let image = world.image(
        "FROM busybox\nMAINTAINER me\nENV a=1 b=\"two words\"\nENV c $a-${b}\nLABEL x=$a\nEXPOSE 80 53/udp\n\
         VOLUME /data\nUSER app\nWORKDIR /made\nWORKDIR deeper\nSTOPSIGNAL SIGINT\nSHELL [\"/bin/busybox\", \"sh\", \"-c\"]\n\
         RUN echo $0 > /tmp/shell\nENTRYPOINT [\"/e\"]\nCMD echo $a\nHEALTHCHECK --interval=5s CMD true\n\
         ONBUILD RUN echo triggered > /tmp/trigger\n",
    );
    let config = &image.configuration.config;
    let env = config.env.as_ref().unwrap();
    assert!(["a=1", "b=two words", "c=1-two words"].iter().all(|v| env.contains(&(*v).to_owned())), "{env:?}");
    assert_eq!(image.label("x"), Some("1"));
    assert_eq!(image.label("by"), Some("$caller 'quoted'"));
    assert_eq!(image.configuration.author, "me");
    let ports: Vec<_> = config.exposed_ports.iter().flatten().map(|(port, _)| port.as_str()).collect();
    assert_eq!(ports, ["53/udp", "80/tcp"]);
    assert!(config.volumes.iter().flatten().any(|(path, _)| path == "/data"));
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("app", "/made/deeper"));
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(config.entrypoint.as_deref().unwrap(), ["/e"]);
    assert_eq!(config.cmd.as_deref().unwrap(), ["/bin/busybox", "sh", "-c", "echo $a"]);
    assert_eq!(config.healthcheck.as_ref().unwrap().interval, 5_000_000_000);
    let step = world.runner.steps.lock().unwrap()[0].clone();
    assert_eq!((step.user.as_str(), step.cwd.as_str()), ("app", "/made/deeper"));

    world.store.tag(image.id.as_str(), "base").unwrap();
    let built = world.build("FROM base\nUSER root\n");
    assert!(built.said.contains("# Executing 1 build trigger\n"), "{}", built.said);
    let child = world.store.by_id(&built.result.unwrap()).unwrap();
    assert_eq!(world.text(&child, "/tmp/trigger"), "triggered\n");
    assert_eq!(child.configuration.config.on_build, None, "triggers do not inherit");
}

#[test]
fn heredocs_are_scripts_and_files() {
    let world = World::new();
    let image = world.image(
        "FROM busybox\nARG x=expanded\nRUN <<EOF\necho one > /one\necho $x >> /one\nEOF\nRUN cat > /two <<'E2'\n$raw\nE2\n\
         COPY <<a.txt <<\"b.txt\" /files/\nhello $x 'q'\na.txt\nhello $x\nb.txt\nCOPY <<F /single\nline\nF\n",
    );
    assert_eq!(world.text(&image, "/one"), "one\nexpanded\n");
    assert_eq!(world.text(&image, "/two"), "$raw\n");
    assert_eq!(world.text(&image, "/files/a.txt"), "hello expanded 'q'\n");
    assert_eq!(world.text(&image, "/files/b.txt"), "hello $x\n");
    assert_eq!(world.text(&image, "/single"), "line\n");
}

#[test]
fn base_images_are_pulled_when_missing_or_asked_for() {
    let mut world = World::new();
    let tar = Tar::new().file("f", "1").done();
    world.runner.remote.lock().unwrap().insert("remote:1".into(), tar);
    let built = world.build("FROM remote:1\nENV a=b\n");
    assert!(built.said.starts_with("Step 1/2 : FROM remote:1\nPulling remote:1\n ---> "), "{}", built.said);
    world.image("FROM remote:1\n");
    assert_eq!(*world.runner.pulled.lock().unwrap(), ["remote:1"]);
    world.options.pull = true;
    world.image("FROM remote:1\n");
    assert_eq!(world.runner.pulled.lock().unwrap().len(), 2);
    let id = world.store.get("busybox").unwrap().id;
    world.image(&format!("FROM {}\n", id.hex()));
    world.image(&format!("FROM {}\n", id.short()));
}

#[test]
fn a_tree_without_end_is_refused_and_costs_no_stack() {
    let world = World::new();
    let deep = tempfile::tempdir().unwrap();
    std::fs::write(deep.path().join("Dockerfile"), "FROM busybox\nCOPY . /x\n").unwrap();
    std::fs::create_dir_all(deep.path().join("d/".repeat(900))).unwrap();
    let error = world.build_from(Context::Directory(deep.path().to_owned())).result.unwrap_err();
    let error = error.chain();
    assert!(error.contains("directories are nested more than 400 deep (line 2 of the Dockerfile)"), "{error}");
}

#[test]
fn a_context_may_be_a_directory_and_its_dockerfile_elsewhere() {
    let mut world = World::new();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("build")).unwrap();
    std::fs::write(directory.path().join("build/App.dockerfile"), "FROM busybox\nCOPY . /ctx\n").unwrap();
    std::fs::write(directory.path().join("build/App.dockerfile.dockerignore"), "ignored").unwrap();
    std::fs::write(directory.path().join("ignored"), "").unwrap();
    std::fs::write(directory.path().join("kept"), "k").unwrap();
    world.options.dockerfile = "build/App.dockerfile".into();
    let built = world.build_from(Context::Directory(directory.path().to_owned()));
    let image = world.store.by_id(&built.result.unwrap()).unwrap();
    assert_eq!(world.text(&image, "/ctx/kept"), "k");
    assert!(world.read(&image, "/ctx/ignored").is_none());
    world.options.dockerfile = "none".into();
    let error = world.build_from(Context::Directory(directory.path().to_owned())).result.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.kind()), ("Cannot locate specified Dockerfile: none", Kind::Invalid));
    world.options.dockerfile = "../../etc/passwd".into();
    assert!(world.build_from(Context::Directory(directory.path().to_owned())).result.is_err());
    world.options.dockerfile = String::new();
    assert!(world.error("FROM busybox\nNONSENSE\n").contains("unknown instruction: NONSENSE"));
    assert_eq!(world.error("\n"), "the Dockerfile (Dockerfile) cannot be empty");
}

#[test]
fn deletions_in_a_step_are_whiteouts_in_its_layer() {
    let world = World::new();
    world.store.made("data", {
        let mut tar = Tar::new();
        tar = tar.directory("bin/").file_of("bin/busybox", &std::fs::read("/bin/busybox").unwrap(), 0o755, 0, 0);
        tar = tar.symlink("bin/sh", "busybox").symlink("bin/rm", "busybox").symlink("bin/mkdir", "busybox");
        tar.directory("d/").file("d/a", "1").file("d/b", "2").directory("e/").file("e/x", "3").done()
    });
    let image = world.image("FROM data\nRUN rm /d/a && rm -r /e && mkdir /e\n");
    let check = |store: &image::Images| {
        let image = store.get(image.id.as_str()).unwrap();
        let rootfs = store.prepare("c", &image.id, true).unwrap();
        let read = |p: &str| store.read_file(&rootfs, p, 10).unwrap().is_some();
        assert_eq!([read("/d/a"), read("/d/b"), read("/e/x")], [false, true, false]);
        store.discard("c").unwrap();
    };
    check(&world.store);
    let mut archive = Vec::new();
    world.store.save(&[image.id.to_string()], &mut archive).unwrap();
    let other = Store::new();
    other.load(&archive[..], None).unwrap();
    check(&other);
}
