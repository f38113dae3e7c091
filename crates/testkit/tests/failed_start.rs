//! A container that cannot be started: what is left of it, and what its client hears.

use serde_json::{Value, json};
use std::io::Read;
use testkit::{Lab, http, program};

#[test]
fn one_with_rm_is_removed_and_whoever_waits_for_that_hears_of_it() {
    let lab = Lab::start(&program()).unwrap();
    let body = json!({ "Image": "busybox", "HostConfig": { "AutoRemove": true, "NetworkMode": "nosuch" } });
    assert_eq!(lab.post("/containers/create?name=short", body).unwrap().status, 201);
    // As docker does: it waits for the removal before it starts the container.
    let wait = b"POST /containers/short/wait?condition=removed HTTP/1.1\r\nHost: isle\r\nConnection: close\r\n\r\n";
    let mut waiting = http::raw(&lab.socket(), wait).unwrap();
    let mut head = [0; 12];
    waiting.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let refused = lab.post("/containers/short/start", Value::Null).unwrap();
    assert_eq!((refused.status, refused.message().contains("network nosuch not found")), (404, true));
    let mut rest = String::new();
    waiting.read_to_string(&mut rest).expect("the removal is told");
    assert!(rest.contains("StatusCode"), "{rest}");
    assert_eq!(lab.get("/containers/short/json").unwrap().status, 404);
}

#[test]
fn one_that_shares_the_network_of_nobody_is_refused_at_once_and_not_as_a_missing_image() {
    let lab = Lab::start(&program()).unwrap();
    let body = json!({ "Image": "busybox", "HostConfig": { "NetworkMode": "container:nosuch" } });
    let refused = lab.post("/containers/create", body).unwrap();
    // A client that hears 404 here pulls the image.
    assert_eq!(refused.status, 400);
    assert_eq!(refused.message(), "joining network namespace of container: No such container: nosuch");
}
