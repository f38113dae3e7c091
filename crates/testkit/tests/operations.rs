//! Every operation of Docker's Engine API is asked for once, with a container at hand, and what comes back is held
//! against Docker's own description of the API where that file is there: `ENGINE_API_DESCRIPTION` says where (it is
//! Docker's, so it is not among ours). Without it the statuses alone are held against what is written here.

mod description {
    //! The part of Swagger 2.0 that the description uses.

    use serde_json::Value;

    pub struct Description(Value);

    impl Description {
        /// The file that `ENGINE_API_DESCRIPTION` names, or the one that lies beside the project.
        pub fn find() -> Option<Self> {
            let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/spec/engine-api-v1.50.yaml");
            let named = std::env::var("ENGINE_API_DESCRIPTION").unwrap_or_else(|_| beside.into());
            Some(Self::of(&std::fs::read_to_string(named).ok()?))
        }

        pub fn of(text: &str) -> Self {
            Self(serde_yaml_ng::from_str(text).expect("the description is YAML"))
        }

        /// The operations, as `GET /networks/{id}`.
        pub fn operations(&self) -> Vec<String> {
            let paths = self.0["paths"].as_object().expect("paths");
            let of = |(path, methods): (&String, &Value)| {
                let methods = methods.as_object().expect("methods").keys();
                methods.map(|m| format!("{} {path}", m.to_uppercase())).collect::<Vec<_>>()
            };
            paths.iter().flat_map(of).collect()
        }

        /// What is wrong with the answer to an operation, one line each.
        pub fn wrong(&self, operation: &str, status: u16, body: Option<&Value>) -> Vec<String> {
            let (method, path) = operation.split_once(' ').expect("method and path");
            let responses = &self.0["paths"][path][method.to_lowercase()]["responses"];
            let Some(response) = responses.get(status.to_string()) else {
                // What Isle refuses for good is not described, nor is a name that is taken.
                if [501, 409].contains(&status) {
                    return Vec::new();
                }
                return vec![format!("status {status} is not described")];
            };
            let mut wrong = Vec::new();
            if let (Some(body), Some(schema)) = (body, response.get("schema")) {
                self.check("", body, schema, &mut wrong);
            }
            wrong
        }

        fn check(&self, at: &str, value: &Value, schema: &Value, wrong: &mut Vec<String>) {
            if let Some(name) = schema["$ref"].as_str() {
                let name = name.rsplit('/').next().expect("a definition");
                return self.check(at, value, &self.0["definitions"][name], wrong);
            }
            for part in schema["allOf"].as_array().into_iter().flatten() {
                self.check(at, value, part, wrong);
            }
            // Docker's own answers have null where the description forgets to say so: x-nullable false is what is meant.
            if value.is_null() {
                if schema["x-nullable"] == false {
                    wrong.push(format!("{at} is null"));
                }
                return;
            }
            let is = match schema["type"].as_str() {
                Some("object") => value.is_object(),
                Some("array") => value.is_array(),
                Some("string") => value.is_string(),
                Some("integer") => value.is_i64() || value.is_u64(),
                Some("number") => value.is_number(),
                Some("boolean") => value.is_boolean(),
                _ => true,
            };
            if !is {
                wrong.push(format!("{at} is {value}, not {}", schema["type"]));
                return;
            }
            if let Some(words) = schema["enum"].as_array()
                && !words.contains(value)
            {
                wrong.push(format!("{at} is {value}, none of {words:?}"));
            }
            if matches!(schema["format"].as_str(), Some("dateTime" | "date-time"))
                && !is_time(value.as_str().unwrap_or_default())
            {
                wrong.push(format!("{at} is {value}, not a time"));
            }
            for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                self.check(&format!("{at}[{i}]"), item, &schema["items"], wrong);
            }
            for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if value.get(required).is_none() {
                    wrong.push(format!("{at}.{required} is missing"));
                }
            }
            for (name, field) in value.as_object().into_iter().flatten() {
                match schema["properties"].get(name) {
                    Some(described) => self.check(&format!("{at}.{name}"), field, described, wrong),
                    None => self.check(&format!("{at}.{name}"), field, &schema["additionalProperties"], wrong),
                }
            }
        }
    }

    /// RFC 3339, or nothing, as Docker says of what has not happened.
    fn is_time(text: &str) -> bool {
        let form =
            regex_lite::Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$").expect("a pattern");
        text.is_empty() || form.is_match(text)
    }
}

use description::Description;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use testkit::{Lab, program};

/// Asks for operations, and remembers which, and what was wrong.
struct Asker {
    lab: Lab,
    description: Option<Description>,
    asked: BTreeSet<String>,
    wrong: Vec<String>,
}

impl Asker {
    /// `request` is a method and a path; `operation` the path's template where it differs.
    fn ask(&mut self, operation: &str, request: &str, body: Value, status: u16) -> Value {
        let bytes = match &body {
            Value::Null => Vec::new(),
            Value::String(text) => text.clone().into_bytes(),
            body => body.to_string().into_bytes(),
        };
        self.send(operation, request, &bytes, status)
    }

    fn send(&mut self, operation: &str, request: &str, bytes: &[u8], status: u16) -> Value {
        let (method, path) = request.split_once(' ').expect("method and path");
        let answer = testkit::http::request(&self.lab.socket(), method, path, bytes).expect("an answer");
        if answer.status != status {
            self.wrong.push(format!("{request}: {}, not {status}: {}", answer.status, answer.text()));
        }
        let body: Option<Value> = serde_json::from_str(&answer.text()).ok();
        if let Some(description) = &self.description {
            let wrong =
                description.wrong(operation, answer.status, body.as_ref().filter(|b| b.is_object() || b.is_array()));
            self.wrong.extend(wrong.into_iter().map(|w| format!("{request} {}: {w}", answer.status)));
        }
        self.asked.insert(operation.to_owned());
        body.unwrap_or_default()
    }
}

/// A build of one line.
fn context() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let dockerfile = b"FROM busybox\nLABEL a=b\n";
    let mut header = tar::Header::new_gnu();
    header.set_size(dockerfile.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "Dockerfile", dockerfile.as_slice()).unwrap();
    archive.into_inner().unwrap()
}

#[test]
fn an_answer_that_is_not_as_described_is_seen() {
    let description = Description::of(
        r#"
paths:
  /things:
    get:
      responses:
        "200": { schema: { type: array, items: { $ref: '#/definitions/Thing' } } }
definitions:
  Thing:
    type: object
    required: [Id]
    properties:
      Id: { type: string, x-nullable: false }
      Size: { type: integer }
      State: { type: string, enum: [made, gone] }
      Made: { type: string, format: dateTime }
      Labels: { type: object, additionalProperties: { type: string } }
"#,
    );
    let wrong = |status, thing: Value| description.wrong("GET /things", status, Some(&json!([thing])));
    assert_eq!(wrong(200, json!({ "Id": "a", "Size": 1, "State": "made", "Labels": null })), [""; 0]);
    assert_eq!(wrong(204, json!({ "Id": "a" })), ["status 204 is not described"]);
    for thing in [
        json!({}),
        json!({ "Id": null }),
        json!({ "Id": "a", "Size": "1" }),
        json!({ "Id": "a", "State": "lost" }),
        json!({ "Id": "a", "Made": "today" }),
        json!({ "Id": "a", "Labels": { "b": 1 } }),
    ] {
        assert_eq!(wrong(200, thing.clone()).len(), 1, "{thing}");
    }
}

#[test]
fn every_operation_for_one_machine_answers_as_described() {
    let mut all = Asker::new();
    all.the_machine();
    all.networks_and_volumes();
    all.a_container();
    all.its_commands_and_files();
    all.images();
    all.its_end();
    all.many_machines_and_plugins();
    all.finish();
}

impl Asker {
    fn new() -> Self {
        let lab = Lab::start(&program()).unwrap();
        let description = Description::find();
        if description.is_none() {
            println!("Docker's description is not here (ENGINE_API_DESCRIPTION): bodies are not held against it");
        }
        Self { lab, description, asked: BTreeSet::new(), wrong: Vec::new() }
    }

    fn the_machine(&mut self) {
        for operation in ["GET /_ping", "HEAD /_ping", "GET /version", "GET /info", "GET /system/df"] {
            self.ask(operation, operation, Value::Null, 200);
        }
        self.ask("GET /events", "GET /events?since=1&until=0s", Value::Null, 200);
        // Nobody listens there.
        let account = json!({ "username": "me", "password": "secret", "serveraddress": "127.0.0.1:1" });
        self.ask("POST /auth", "POST /auth", account, 500);
    }

    fn networks_and_volumes(&mut self) {
        let body = json!({ "Name": "front", "EnableIPv6": true, "Labels": { "a": "b" } });
        self.ask("POST /networks/create", "POST /networks/create", body, 201);
        self.ask("POST /networks/create", "POST /networks/create", json!({ "Name": "front" }), 409);
        self.ask("POST /networks/create", "POST /networks/create", json!({ "Name": "host" }), 403);
        self.ask("GET /networks", "GET /networks", Value::Null, 200);
        self.ask("GET /networks/{id}", "GET /networks/front", Value::Null, 200);
        self.ask("GET /networks/{id}", "GET /networks/nosuch", Value::Null, 404);
        self.ask("POST /volumes/create", "POST /volumes/create", json!({ "Name": "data" }), 201);
        self.ask("GET /volumes", "GET /volumes", Value::Null, 200);
        self.ask("GET /volumes/{name}", "GET /volumes/data", Value::Null, 200);
        self.ask("GET /volumes/{name}", "GET /volumes/nosuch", Value::Null, 404);
        self.ask("PUT /volumes/{name}", "PUT /volumes/data?version=1", json!({ "Spec": {} }), 503);
    }

    fn a_container(&mut self) {
        let body = json!({
            "Image": "busybox", "Cmd": testkit::client::POLITE, "Env": ["A=1"], "ExposedPorts": { "81/tcp": {} },
            "Healthcheck": { "Test": ["CMD", "true"] }, "Labels": { "a": "b" }, "Volumes": { "/x": {} },
            "HostConfig": {
                "NetworkMode": "front", "Binds": ["data:/data"], "Tmpfs": { "/t": "" }, "Memory": 67_108_864,
                "PortBindings": { "80/tcp": [{ "HostPort": "8080" }] }, "RestartPolicy": { "Name": "no" },
                "Ulimits": [{ "Name": "nofile", "Soft": 9, "Hard": 99 }],
                "Devices": [{ "PathOnHost": "/dev/null", "PathInContainer": "/dev/nil", "CgroupPermissions": "r" }],
            },
            "NetworkingConfig": { "EndpointsConfig": { "front": { "Aliases": ["web"] } } },
        });
        self.ask("POST /containers/create", "POST /containers/create?name=c1", body.clone(), 201);
        self.ask("POST /containers/create", "POST /containers/create?name=c1", body, 409);
        self.ask("POST /containers/create", "POST /containers/create", json!({ "Image": "nosuch" }), 404);
        self.ask("POST /containers/create", "POST /containers/create", "{".into(), 400);
        for inspection in ["GET /containers/c1/json", "GET /containers/c1/json?size=1"] {
            self.ask("GET /containers/{id}/json", inspection, Value::Null, 200);
        }
        self.ask("POST /containers/{id}/start", "POST /containers/c1/start", Value::Null, 204);
        self.ask("POST /containers/{id}/start", "POST /containers/c1/start", Value::Null, 304);
        self.ask("POST /containers/{id}/start", "POST /containers/nosuch/start", Value::Null, 404);
        self.lab.up("c1");
        self.ask("GET /containers/json", "GET /containers/json?all=1&size=1", Value::Null, 200);
        self.ask("GET /containers/json", "GET /containers/json?filters=x", Value::Null, 400);
        self.ask("GET /containers/{id}/json", "GET /containers/c1/json", Value::Null, 200);
        self.ask("GET /networks/{id}", "GET /networks/front?verbose=1", Value::Null, 200);
        self.ask("GET /containers/{id}/top", "GET /containers/c1/top?ps_args=aux", Value::Null, 200);
        self.ask("GET /containers/{id}/stats", "GET /containers/c1/stats?stream=0", Value::Null, 200);
        self.ask("GET /containers/{id}/logs", "GET /containers/c1/logs?stdout=1&tail=1", Value::Null, 200);
        self.ask("GET /containers/{id}/logs", "GET /containers/nosuch/logs?stdout=1", Value::Null, 404);
        self.ask("POST /containers/{id}/resize", "POST /containers/c1/resize?h=40&w=80", Value::Null, 200);
        self.ask("POST /containers/{id}/update", "POST /containers/c1/update", json!({ "CpuShares": 512 }), 200);
        self.ask("POST /containers/{id}/pause", "POST /containers/c1/pause", Value::Null, 204);
        self.ask("GET /containers/{id}/json", "GET /containers/c1/json", Value::Null, 200);
        self.ask("POST /containers/{id}/unpause", "POST /containers/c1/unpause", Value::Null, 204);
        self.ask("POST /containers/{id}/rename", "POST /containers/c1/rename?name=c2", Value::Null, 204);
        self.ask("POST /containers/{id}/rename", "POST /containers/c2/rename?name=c1", Value::Null, 204);
        self.ask("POST /containers/{id}/attach", "POST /containers/c1/attach?logs=1&stdout=1", Value::Null, 200);
        self.ask("GET /containers/{id}/attach/ws", "GET /containers/nosuch/attach/ws", Value::Null, 404);
        self.ask("POST /networks/{id}/connect", "POST /networks/bridge/connect", json!({ "Container": "c1" }), 200);
        self.ask(
            "POST /networks/{id}/disconnect",
            "POST /networks/bridge/disconnect",
            json!({ "Container": "c1" }),
            200,
        );
    }

    fn its_commands_and_files(&mut self) {
        let command = json!({ "Cmd": ["sh", "-c", "echo new > /new"], "AttachStdout": true });
        let made = self.ask("POST /containers/{id}/exec", "POST /containers/c1/exec", command, 201);
        let exec = made["Id"].as_str().unwrap().to_owned();
        self.ask("GET /exec/{id}/json", &format!("GET /exec/{exec}/json"), Value::Null, 200);
        self.ask("POST /exec/{id}/start", &format!("POST /exec/{exec}/start"), json!({}), 200);
        self.ask("POST /exec/{id}/start", "POST /exec/nosuch/start", json!({}), 404);
        self.ask("POST /exec/{id}/resize", "POST /exec/nosuch/resize?h=40&w=80", Value::Null, 404);
        self.ask("GET /exec/{id}/json", &format!("GET /exec/{exec}/json"), Value::Null, 200);
        self.ask("GET /containers/{id}/changes", "GET /containers/c1/changes", Value::Null, 200);
        self.ask("GET /containers/{id}/export", "GET /containers/c1/export", Value::Null, 200);
        self.ask("HEAD /containers/{id}/archive", "HEAD /containers/c1/archive?path=/new", Value::Null, 200);
        self.ask("GET /containers/{id}/archive", "GET /containers/c1/archive?path=/new", Value::Null, 200);
        self.ask("GET /containers/{id}/archive", "GET /containers/c1/archive?path=/nosuch", Value::Null, 404);
        self.ask("GET /containers/{id}/archive", "GET /containers/c1/archive", Value::Null, 400);
        self.send("PUT /containers/{id}/archive", "PUT /containers/c1/archive?path=/tmp", &[0; 1024], 200);
        self.ask("POST /commit", "POST /commit?container=c1&repo=changed", json!({}), 201);
    }

    fn images(&mut self) {
        self.ask("GET /images/json", "GET /images/json?all=1&digests=1&manifests=1", Value::Null, 200);
        self.ask("GET /images/{name}/json", "GET /images/changed/json", Value::Null, 200);
        self.ask("GET /images/{name}/json", "GET /images/nosuch/json", Value::Null, 404);
        self.ask("GET /images/{name}/history", "GET /images/changed/history", Value::Null, 200);
        self.ask("POST /images/{name}/tag", "POST /images/changed/tag?repo=again&tag=1", Value::Null, 201);
        self.ask("GET /images/{name}/get", "GET /images/again:1/get", Value::Null, 200);
        self.ask("GET /images/get", "GET /images/get?names=again:1", Value::Null, 200);
        self.send("POST /images/load", "POST /images/load?quiet=1", &testkit::images::busybox().unwrap(), 200);
        // No registry is to be had: what it says stands in the stream, or is a refusal.
        self.ask("POST /images/create", "POST /images/create?fromImage=127.0.0.1:1/nosuch&tag=1", Value::Null, 500);
        self.ask("POST /images/{name}/push", "POST /images/nosuch/push", Value::Null, 404);
        self.ask("GET /images/search", "GET /images/search?term=a", Value::Null, 501);
        self.ask("GET /distribution/{name}/json", "GET /distribution/127.0.0.1:1/nosuch/json", Value::Null, 500);
        self.send("POST /build", "POST /build?t=built", &context(), 200);
        self.ask("POST /build/prune", "POST /build/prune", Value::Null, 200);
        self.ask("POST /session", "POST /session", Value::Null, 400);
        self.ask("DELETE /images/{name}", "DELETE /images/again:1", Value::Null, 200);
        self.ask("DELETE /images/{name}", "DELETE /images/nosuch", Value::Null, 404);
    }

    fn its_end(&mut self) {
        self.ask("POST /containers/{id}/stop", "POST /containers/c1/stop?t=5", Value::Null, 204);
        self.ask("GET /containers/{id}/json", "GET /containers/c1/json", Value::Null, 200);
        self.ask("POST /containers/{id}/wait", "POST /containers/c1/wait", Value::Null, 200);
        self.ask("POST /containers/{id}/restart", "POST /containers/c1/restart?t=5", Value::Null, 204);
        self.ask("POST /containers/{id}/kill", "POST /containers/c1/kill", Value::Null, 204);
        self.ask("POST /containers/{id}/wait", "POST /containers/c1/wait", Value::Null, 200);
        self.ask("POST /containers/{id}/kill", "POST /containers/c1/kill", Value::Null, 409);
        self.ask("DELETE /containers/{id}", "DELETE /containers/c1?v=1", Value::Null, 204);
        self.ask("DELETE /containers/{id}", "DELETE /containers/c1", Value::Null, 404);
        self.ask("DELETE /networks/{id}", "DELETE /networks/host", Value::Null, 403);
        self.ask("DELETE /networks/{id}", "DELETE /networks/front", Value::Null, 204);
        self.ask("DELETE /volumes/{name}", "DELETE /volumes/data", Value::Null, 204);
        for operation in ["POST /containers/prune", "POST /networks/prune", "POST /volumes/prune", "POST /images/prune"]
        {
            self.ask(operation, operation, Value::Null, 200);
        }
    }

    /// As a Docker answers that is in no swarm and has no plugins.
    fn many_machines_and_plugins(&mut self) {
        let unavailable = [
            "GET /swarm",
            "POST /swarm/init",
            "POST /swarm/join",
            "POST /swarm/leave",
            "POST /swarm/update",
            "GET /swarm/unlockkey",
            "POST /swarm/unlock",
            "GET /nodes",
            "GET /nodes/{id}",
            "DELETE /nodes/{id}",
            "POST /nodes/{id}/update",
            "GET /services",
            "POST /services/create",
            "GET /services/{id}",
            "DELETE /services/{id}",
            "POST /services/{id}/update",
            "GET /services/{id}/logs",
            "GET /tasks",
            "GET /tasks/{id}",
            "GET /tasks/{id}/logs",
            "GET /secrets",
            "POST /secrets/create",
            "GET /secrets/{id}",
            "DELETE /secrets/{id}",
            "POST /secrets/{id}/update",
            "GET /configs",
            "POST /configs/create",
            "GET /configs/{id}",
            "DELETE /configs/{id}",
            "POST /configs/{id}/update",
        ];
        for operation in unavailable {
            let said = self.ask(operation, &operation.replace("{id}", "some"), Value::Null, 503);
            assert!(said["message"].is_string(), "{operation}: {said}");
        }
        let unknown = [
            "GET /plugins/{name}/json",
            "DELETE /plugins/{name}",
            "POST /plugins/{name}/enable",
            "POST /plugins/{name}/disable",
            "POST /plugins/{name}/upgrade",
            "POST /plugins/{name}/push",
            "POST /plugins/{name}/set",
        ];
        for operation in unknown {
            let said = self.ask(operation, &operation.replace("{name}", "some"), Value::Null, 404);
            assert_eq!(said["message"], "plugin \"some\" not found", "{operation}");
        }
        assert_eq!(self.ask("GET /plugins", "GET /plugins", Value::Null, 200), json!([]));
        self.ask("GET /plugins/privileges", "GET /plugins/privileges?remote=some", Value::Null, 501);
        self.ask("POST /plugins/pull", "POST /plugins/pull?remote=some", json!([]), 501);
        self.ask("POST /plugins/create", "POST /plugins/create?name=some", Value::Null, 501);
    }

    /// Everything that the documents list was asked for, and nothing was wrong.
    fn finish(self) {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut listed = testkit::operations::listed(&root).unwrap();
        listed.extend(self.description.iter().flat_map(Description::operations));
        let missing: BTreeSet<_> = listed.iter().filter(|o| !self.asked.contains(*o) && *o != "POST /grpc").collect();
        assert!(missing.is_empty(), "not asked for: {missing:?}");
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
    }
}
