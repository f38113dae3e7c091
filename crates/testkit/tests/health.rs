//! Health checks, as a client sees them: in inspections, lists, filters and events.

use serde_json::{Value, json};
use std::time::Duration;
use testkit::{Lab, program, within};

const MILLISECOND: i64 = 1_000_000;

/// A container that lives, with a check.
fn checked(test: &[&str], more: Value) -> Value {
    let mut check = json!({ "Test": test, "Interval": 100 * MILLISECOND, "Retries": 2 });
    for (name, value) in more.as_object().into_iter().flatten() {
        check[name] = value.clone();
    }
    json!({ "Cmd": ["sleep", "600"], "Healthcheck": check })
}

fn status_in_list(lab: &Lab, name: &str) -> String {
    let filters = format!("%7B%22name%22%3A%5B%22%5E{name}%24%22%5D%7D");
    let listed = lab.get(&format!("/containers/json?filters={filters}")).unwrap().json();
    listed[0]["Status"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn checks_are_run_and_their_results_are_told_everywhere() {
    let mut lab = Lab::start(&program()).unwrap();
    let shown = |lab: &Lab, name: &str| lab.inspect(name)["State"]["Health"].clone();
    let is = |lab: &Lab, name: &str, status: &str| {
        within(Duration::from_secs(20), &format!("{name} is {status}"), || shown(lab, name)["Status"] == status);
    };
    lab.run("well", checked(&["CMD-SHELL", "echo checked $((40+2)); test ! -e /ill"], json!({})));
    is(&lab, "well", "healthy");
    let health = shown(&lab, "well");
    assert_eq!((&health["FailingStreak"], &health["Log"][0]["ExitCode"]), (&json!(0), &json!(0)));
    assert_eq!(health["Log"][0]["Output"], "checked 42\n");
    assert!(status_in_list(&lab, "well").ends_with(" (healthy)"), "{}", status_in_list(&lab, "well"));
    // Two failures in a row, and back.
    lab.exec("well", &["touch", "/ill"]).ok();
    is(&lab, "well", "unhealthy");
    assert!(shown(&lab, "well")["FailingStreak"].as_i64().unwrap() >= 2);
    lab.exec("well", &["rm", "/ill"]).ok();
    is(&lab, "well", "healthy");
    assert!(shown(&lab, "well")["Log"].as_array().unwrap().len() <= 5);

    // One that takes too long; one that cannot be executed; one that may take its time to start.
    lab.run("slow", checked(&["CMD", "sleep", "60"], json!({ "Timeout": 100 * MILLISECOND, "Retries": 1 })));
    lab.run("none", checked(&["CMD", "/nosuch"], json!({ "Retries": 1 })));
    lab.run(
        "patient",
        checked(&["CMD", "false"], json!({ "StartPeriod": 600_000 * MILLISECOND, "StartInterval": 50 * MILLISECOND })),
    );
    is(&lab, "slow", "unhealthy");
    let output = shown(&lab, "slow")["Log"][0]["Output"].as_str().unwrap().to_owned();
    assert!(output.starts_with("Health check exceeded timeout (100ms)"), "{output}");
    is(&lab, "none", "unhealthy");
    assert_eq!(shown(&lab, "none")["Log"][0]["ExitCode"], -1);
    within(Duration::from_secs(10), "it is checked", || shown(&lab, "patient")["Log"].as_array().unwrap().len() == 5);
    assert_eq!(
        (&shown(&lab, "patient")["Status"], &shown(&lab, "patient")["FailingStreak"]),
        (&json!("starting"), &json!(0))
    );
    assert!(status_in_list(&lab, "patient").ends_with(" (health: starting)"));

    // Without a check, or with none at all.
    lab.run("off", json!({ "Cmd": ["sleep", "600"], "Healthcheck": { "Test": ["NONE"] } }));
    assert_eq!(shown(&lab, "off"), Value::Null);
    let filters = "%7B%22health%22%3A%5B%22unhealthy%22%5D%7D";
    let listed = lab.get(&format!("/containers/json?filters={filters}")).unwrap().json();
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed:#}");

    // The next daemon goes on with it.
    lab.stop_daemon();
    lab.start_daemon().unwrap();
    is(&lab, "well", "healthy");
}

#[test]
fn an_images_check_is_its_containers_and_its_turn_is_an_event() {
    let lab = Lab::start(&program()).unwrap();
    let context = tempfile::tempdir().unwrap();
    let dockerfile = "FROM busybox\nHEALTHCHECK --interval=100ms CMD test -e /etc/passwd\nCMD [\"sleep\", \"600\"]\n";
    std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    lab.isle(&["build", "-q", "-t", "checked", &context.path().display().to_string()]).ok();
    lab.isle(&["run", "-d", "--name", "web", "checked"]).ok();
    within(Duration::from_secs(20), "it is healthy", || lab.inspect("web")["State"]["Health"]["Status"] == "healthy");
    let told = lab.isle(&["events", "--since", "1h", "--until", "0s", "--format", "{{.Action}}"]).ok();
    assert!(told.lines().any(|line| line == "health_status: healthy"), "{told}");
    assert!(lab.isle(&["ps"]).ok().contains("(healthy)"));
    lab.isle(&["run", "-d", "--name", "bare", "--no-healthcheck", "checked"]).ok();
    assert!(lab.inspect("bare")["State"]["Health"].is_null());
}
