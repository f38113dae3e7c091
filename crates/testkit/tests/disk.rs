//! What of the disk is used, and what is let go of: `system df`, sizes, and prunes with their filters.

use serde_json::{Value, json};
use testkit::{Lab, program};

fn prune(lab: &Lab, what: &str, filters: Value) -> Value {
    let text: String = filters.to_string().bytes().map(|b| format!("%{b:02x}")).collect();
    let answer = lab.post(&format!("{what}/prune?filters={text}"), Value::Null).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn disk_usage_is_told_and_given_back_by_filters() {
    let lab = Lab::start(&program()).unwrap();
    let made = |name: &str, label: &str| {
        let script = "head -c 100000 /dev/zero > /big; head -c 5000 /dev/zero > /data/f";
        let host = json!({ "Binds": [format!("vol-{name}:/data")] });
        let body = json!({ "Cmd": ["sh", "-c", script], "Labels": { label: "1" }, "HostConfig": host });
        let id = lab.run(name, body);
        lab.wait(name);
        id
    };
    let (first, second) = (made("first", "keep"), made("second", "drop"));
    lab.post("/volumes/create", json!({ "Name": "labelled", "Labels": { "keep": "1" } })).unwrap();

    let usage = lab.get("/system/df").unwrap().json();
    let container = usage["Containers"].as_array().unwrap().iter().find(|c| c["Id"] == first.as_str()).unwrap();
    let written = container["SizeRw"].as_i64().unwrap();
    assert!((100_000..200_000).contains(&written), "{container}");
    let image = usage["Images"][0]["Size"].as_i64().unwrap();
    assert_eq!(container["SizeRootFs"].as_i64().unwrap(), image + written);
    assert_eq!((usage["Images"][0]["Containers"].as_i64(), usage["LayersSize"].as_i64()), (Some(2), Some(image)));
    let volume = usage["Volumes"].as_array().unwrap().iter().find(|v| v["Name"] == "vol-first").unwrap();
    assert_eq!(volume["UsageData"], json!({ "Size": 5000, "RefCount": 1 }));
    assert_eq!(usage["BuildCache"], json!([]));
    let some = lab.get("/system/df?type=volume").unwrap().json();
    assert_eq!(some.as_object().unwrap().keys().collect::<Vec<_>>(), ["Volumes"]);
    assert_eq!(lab.get("/system/df?type=socks").unwrap().status, 400);
    let listed = lab.get("/containers/json?all=1&size=1").unwrap().json();
    assert_eq!(listed[0]["SizeRootFs"].as_i64().unwrap(), image + listed[0]["SizeRw"].as_i64().unwrap());

    for shown in [Some(lab.isle(&["system", "df", "-v"])), lab.docker(&["system", "df", "-v"])].into_iter().flatten() {
        let shown = shown.ok();
        for title in
            ["Images space usage:", "Containers space usage:", "Local Volumes space usage:", "Build cache usage: 0B"]
        {
            assert!(shown.contains(title), "{shown}");
        }
        let line = |name: &str| shown.lines().find(|l| l.contains(name)).unwrap_or_default().to_owned();
        assert!(line("vol-first").ends_with("5kB") && line(&first[..12]).contains("100kB"), "{shown}");
    }

    // By age and labels; what is left out stays.
    for ago in ["24h", "1.5h", "1h30m"] {
        let removed = prune(&lab, "/containers", json!({ "until": [ago] }));
        assert_eq!((&removed["ContainersDeleted"], removed["SpaceReclaimed"].as_i64()), (&Value::Null, Some(0)));
    }
    let removed = prune(&lab, "/containers", json!({ "label!": { "keep": true } }));
    assert_eq!(removed["ContainersDeleted"], json!([second]));
    assert!(removed["SpaceReclaimed"].as_i64().unwrap() >= 100_000);
    let removed = prune(&lab, "/volumes", json!({ "all": ["true"], "label!": ["keep"] }));
    assert_eq!((&removed["VolumesDeleted"], &removed["SpaceReclaimed"]), (&json!(["vol-second"]), &json!(5000)));
    assert_eq!(prune(&lab, "/volumes", json!({}))["VolumesDeleted"], json!([]), "named ones stay");
    assert_eq!(prune(&lab, "/v1.41/volumes", json!({}))["VolumesDeleted"], json!(["labelled"]), "as it was once");
    lab.remove("first");
    assert_eq!(prune(&lab, "/images", json!({ "dangling": ["true"] }))["ImagesDeleted"], Value::Null);
    assert_eq!(
        prune(&lab, "/images", json!({ "dangling": ["false"], "until": ["24h"] }))["ImagesDeleted"],
        Value::Null
    );
    let removed = prune(&lab, "/images", json!({ "dangling": ["false"] }));
    assert_eq!(removed["ImagesDeleted"][0], json!({ "Untagged": "busybox:latest" }));
    let refused = lab.post("/containers/prune?filters=%7B%22colour%22%3A%5B%22x%22%5D%7D", Value::Null).unwrap();
    assert_eq!((refused.status, refused.message()), (400, "invalid filter 'colour'".into()));
}
