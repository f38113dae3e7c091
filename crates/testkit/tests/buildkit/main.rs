//! Building as buildx does, by BuildKit's protocol: with bollard's client, and with one that does what buildx's
//! `docker` driver does.

mod client;

use bollard::Docker;
use bollard::grpc::build::{ImageBuildFrontendOptions, ImageBuildLoadInput};
use bollard::grpc::driver::Build;
use bollard::grpc::driver::moby::Moby;
use client::{Client, Offer, Solved};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Lab, program, within};

/// Waits for what a client does.
fn run<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), what).await.expect("within a minute") })
}

/// What a container of an image says.
fn says(lab: &Lab, image: &str, command: Value) -> String {
    let name = format!("says-{}", image.replace([':', '/'], "-"));
    lab.run(&name, json!({ "Image": image, "Cmd": command }));
    assert_eq!(lab.wait(&name), 0);
    let said = lab.logs(&name, "").0;
    lab.remove(&name);
    said
}

fn config(lab: &Lab, image: &str) -> Value {
    lab.get(&format!("/images/{image}/json")).unwrap().json()["Config"].clone()
}

#[test]
fn bollard_builds_what_it_uploads() {
    let lab = Lab::start(&program()).unwrap();
    let dockerfile =
        "FROM busybox AS base\nARG WHO=nobody\nCOPY file /file\nRUN echo $WHO >> /file\nFROM base\nRUN false\n";
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in [("Dockerfile", dockerfile), ("file", "content\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    let archive = archive.into_inner().unwrap();
    let docker = Docker::connect_with_unix(lab.socket().to_str().unwrap(), 60, bollard::API_DEFAULT_VERSION).unwrap();
    let options =
        ImageBuildFrontendOptions::builder().target("base").buildarg("WHO", "bollard").label("made", "by it").build();
    let load = ImageBuildLoadInput::Upload(archive.clone().into());
    run(Moby::new(&docker).docker_build("uploaded:1", options, load, None, None)).unwrap();
    assert_eq!(says(&lab, "uploaded:1", json!(["cat", "/file"])), "content\nbollard\n");
    assert_eq!(config(&lab, "uploaded:1")["Labels"]["made"], "by it");

    let load = ImageBuildLoadInput::Upload(archive.into());
    let options = ImageBuildFrontendOptions::builder().build();
    let failed = run(Moby::new(&docker).docker_build("uploaded:2", options, load, None, None)).unwrap_err();
    let said = format!("{failed:?}");
    assert!(said.contains("did not complete successfully: exit code: 1"), "{said}");
    assert_eq!(lab.get("/images/uploaded:2/json").unwrap().status, 404);
}

#[test]
fn buildx_builds_from_a_directory_and_sees_how_it_goes() {
    let lab = Lab::start(&program()).unwrap();
    let long = "x".repeat(6 << 20);
    let offer = Offer::default()
        .file("dockerfile", "Dockerfile", "FROM busybox\nWORKDIR /work\nCOPY . .\nRUN ls; wc -c < large; echo said\n")
        .file("context", ".dockerignore", "# not these\n/secret\n*.log\n!kept.log\n")
        .file("context", "a/b/deep", "deep")
        .file("context", "kept.log", "kept")
        .file("context", "large", &long)
        .file("context", "lost.log", "lost")
        .file("context", "secret", "secret");
    run(async {
        let client = Client::open(&lab.socket(), offer).await;
        // a first call with nothing to build, for what the server can do
        client.lead(&[], &[], None).await.unwrap();
        let Solved { response, progress } = client
            .lead(
                &[("filename", "Dockerfile")],
                &[("moby", &[("name", "docker.io/library/led:1")])],
                Some("dockerfile.v0"),
            )
            .await
            .unwrap();
        assert!(response["containerimage.digest"].starts_with("sha256:"), "{response:?}");
        assert_eq!(response["image.name"], "docker.io/library/led:1");
        let names = progress.names();
        for name in [
            "[internal] load build definition from Dockerfile",
            "[internal] load build context",
            "[1/4] FROM busybox",
            "[3/4] COPY . .",
            "[4/4] RUN ls; wc -c < large; echo said",
            "exporting to image",
        ] {
            assert!(names.contains(&name.to_owned()), "{name}: {names:?}");
        }
        assert!(progress.all_completed(), "{names:?}");
        assert_eq!(progress.log(), "a\nkept.log\nlarge\n6291456\nsaid\n");
        // by the cache
        let again = client.lead(&[], &[("moby", &[])], Some("dockerfile.v0")).await.unwrap();
        assert!(again.progress.is_cached("[4/4] RUN ls; wc -c < large; echo said"), "{:?}", again.progress.names());
        // and by a client that lets the server lead
        let plain = client
            .solve("dockerfile.v0", &[("build-arg:UNUSED", "1")], &[("moby", &[("name", "plain")])])
            .await
            .unwrap();
        assert_eq!(plain.response["containerimage.config.digest"], response["containerimage.config.digest"]);
    });
    assert_eq!(says(&lab, "led:1", json!(["sh", "-c", "cat a/b/deep kept.log; ls"])), "deepkepta\nkept.log\nlarge\n");
    assert_eq!(lab.get("/images/plain/json").unwrap().status, 200);
}

#[test]
fn buildx_is_told_what_is_wrong_and_gets_files_instead_of_an_image() {
    let lab = Lab::start(&program()).unwrap();
    let dockerfile =
        "FROM busybox AS fails\nRUN echo first; exit 9\nFROM scratch AS files\nCOPY one /dir/one\nCOPY two /two\n";
    let offer =
        Offer::default().file("dockerfile", "D", dockerfile).file("context", "one", "1").file("context", "two", "22");
    run(async {
        let client = Client::open(&lab.socket(), offer).await;
        let attrs = |target| [("filename", "D"), ("target", target)];
        let failed = client.lead(&attrs("fails"), &[("moby", &[])], Some("dockerfile.v0")).await.unwrap_err();
        assert_eq!(
            failed.0.message(),
            "process \"/bin/sh -c echo first; exit 9\" did not complete successfully: exit code: 9"
        );
        assert_eq!(failed.1.log(), "first\n");
        assert!(failed.1.error("[fails 2/2] RUN echo first; exit 9").contains("exit code: 9"));
        let wrong = client.solve("dockerfile.v0", &[("filename", "Missing")], &[]).await.unwrap_err();
        assert!(wrong.0.message().contains("failed to read dockerfile: open Missing"), "{}", wrong.0);
        let remote = [("context", "https://example.com/x.git")];
        let wrong = client.solve("dockerfile.v0", &remote, &[]).await.unwrap_err();
        assert!(wrong.0.message().contains("cannot build from https://example.com/x.git"), "{}", wrong.0);

        client.lead(&attrs("files"), &[("tar", &[])], Some("dockerfile.v0")).await.unwrap();
        let archive = client.received_bytes();
        let mut archive = tar::Archive::new(archive.as_slice());
        let names: Vec<String> =
            archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert!(names.iter().any(|n| n.trim_start_matches("./") == "dir/one"), "{names:?}");
    });
    // another client, whose exporter takes files
    let offer = Offer::default()
        .file("dockerfile", "D", dockerfile)
        .file("context", "one", "1")
        .file("context", "two", "22")
        .taking_files();
    run(async {
        let client = Client::open(&lab.socket(), offer).await;
        let attrs = [("filename", "D"), ("target", "files")];
        client.lead(&attrs, &[("local", &[])], Some("dockerfile.v0")).await.unwrap();
        let files = client.received_files();
        assert_eq!(files.get("dir/one").map(Vec::as_slice), Some(b"1".as_slice()), "{:?}", files.keys());
        assert_eq!(files.get("two").map(Vec::as_slice), Some(b"22".as_slice()));
    });
}

#[test]
fn a_step_sees_the_secrets_that_its_client_has() {
    let lab = Lab::start(&program()).unwrap();
    let dockerfile = "FROM busybox\nRUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN \
         cat /run/secrets/token; echo $TOKEN\nRUN --mount=type=secret,id=other,required true\n";
    let offer = Offer::default().file("dockerfile", "Dockerfile", dockerfile).secret("token", "hush\n");
    run(async {
        let client = Client::open(&lab.socket(), offer).await;
        let failed = client.lead(&[], &[("moby", &[])], Some("dockerfile.v0")).await.unwrap_err();
        assert_eq!(failed.1.log(), "hush\nhush\n");
        assert!(failed.0.message().contains("secret other: not found"), "{}", failed.0.message());
    });
}

#[test]
fn a_build_ends_when_buildx_goes() {
    let lab = Lab::start(&program()).unwrap();
    let offer = Offer::default().file("dockerfile", "Dockerfile", "FROM busybox\nRUN echo begun; sleep 3600\n");
    let steps = || {
        let filters = "%7B%22name%22%3A%5B%22build-%22%5D%7D";
        let listed = lab.get(&format!("/containers/json?filters={filters}")).unwrap();
        listed.json().as_array().unwrap().len()
    };
    run(async {
        let client = Client::open(&lab.socket(), offer).await;
        let building = client.lead(&[], &[("moby", &[])], Some("dockerfile.v0"));
        let begun = async {
            while steps() != 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = building => panic!("it ended by itself"),
            () = begun => {}
        }
    });
    within(Duration::from_secs(20), "the step has ended", || steps() == 0);
}
